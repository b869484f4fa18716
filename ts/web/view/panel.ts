/**
 * The panel beside the map: the facts of the box that the pointer is on, or that has the focus.
 */
import { explanation } from '../../guest/explain.ts';
import { layersAt, memoryAt } from '../../guest/layers.ts';
import { addressText } from '../../guest/address-text.ts';
import { elementById, makeElement } from '../dom.ts';
import type { Page } from './state.ts';

/** Selects a box and describes it. */
export function selectBox(page: Page, key: string): void {
  const before = page.selected === undefined ? undefined : page.drawn.get(page.selected);
  before?.element.classList.remove('selected');
  before?.element.setAttribute('aria-selected', 'false');
  page.selected = key;
  const now = page.drawn.get(key);
  now?.element.classList.add('selected');
  now?.element.setAttribute('aria-selected', 'true');
  for (const other of now?.element.parentElement?.querySelectorAll('[tabindex="0"]') ?? []) {
    other.setAttribute('tabindex', '-1');
  }
  now?.element.setAttribute('tabindex', '0'); // the next Tab returns to this box
  describeBox(page, key);
}

/** Describes a box in the panel: the selected one, or the one under the pointer. */
export function describeBox(page: Page, key: string | undefined): void {
  const panel = elementById('panel');
  const drawn = key === undefined ? undefined : page.drawn.get(key);
  const snapshot = page.moments[page.moment];
  if (drawn === undefined || snapshot === undefined) {
    panel.replaceChildren(
      makeElement('p', 'hint', 'Point at a box in the map, or select one with Tab and the arrow keys.'),
    );
    return;
  }
  const { box, column } = drawn;
  const address = BigInt(box.start);
  const place = addressText(snapshot, address, layersAt(snapshot, address), memoryAt(snapshot, address));
  const list = makeElement('dl', '');
  for (const [name, value] of box.facts) {
    const look = name === 'Reason' ? 'wide' : '';
    list.append(makeElement('dt', look, name), makeElement('dd', look, value));
  }
  const title = page.columns[column]?.title ?? '';
  panel.replaceChildren(
    makeElement('p', `badge ${box.look}`, title),
    makeElement('h2', '', box.label),
    list,
    makeElement('h3', '', `At ${box.start}`),
    makeElement('p', 'explained', box.look.startsWith('target') ? place : explanation(snapshot, address).text),
  );
}

/** Explains the address that the user has typed. */
export function explainAddress(page: Page, asked: string): void {
  const snapshot = page.moments[page.moment];
  const answer = elementById('answer');
  const text = asked.trim();
  if (text === '' || snapshot === undefined) {
    answer.textContent = '';
  } else if (/^(0x[0-9a-f]{1,16}|\d{1,19})$/i.test(text)) {
    answer.textContent = explanation(snapshot, BigInt(text)).text;
  } else {
    answer.textContent = `${text} is not an address. Enter one such as 0x1000.`;
  }
}
