/**
 * The panel beside the map: everything about the box that is pointed at, or has the focus.
 */
import { explanation } from '../../../guest/explain.ts';
import { layersAt, memoryAt } from '../../../guest/layers.ts';
import { addressText } from '../../../guest/address-text.ts';
import { elementById, makeElement } from './dom.ts';
import type { Page } from './state.ts';

/** Shows a box while the pointer is on it. */
export function boxHovered(page: Page, key: string): void {
  showBox(page, key);
}

/** Shows again what has the focus. */
export function boxLeft(page: Page): void {
  showBox(page, page.selected);
}

/** Shows a box from now on. */
export function boxFocused(page: Page, key: string): void {
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
  now?.element.setAttribute('tabindex', '0'); // where the next Tab comes back to
  showBox(page, key);
}

/** Everything about a box. */
export function showBox(page: Page, key: string | undefined): void {
  const panel = elementById('panel');
  const drawn = key === undefined ? undefined : page.drawn.get(key);
  const snapshot = page.moments[page.moment];
  if (drawn === undefined || snapshot === undefined) {
    panel.replaceChildren(
      makeElement('p', 'hint', 'Point at something in the map, or go there with Tab and the arrow keys.'),
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

/** Says what is at an address that somebody asks for. */
export function explainAddress(page: Page, asked: string): void {
  const snapshot = page.moments[page.moment];
  const answer = elementById('answer');
  const text = asked.trim();
  if (text === '' || snapshot === undefined) {
    answer.textContent = '';
  } else if (/^(0x[0-9a-f]{1,16}|\d{1,19})$/i.test(text)) {
    answer.textContent = explanation(snapshot, BigInt(text)).text;
  } else {
    answer.textContent = `${text} is no address: 0x1000, say.`;
  }
}
