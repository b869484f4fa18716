/**
 * Draws the map. Reuses the boxes of the moment before, so that they move to their new positions.
 */
import { elementById, makeElement } from '../dom.ts';
import type { Box } from './box.ts';
import { columnsOf } from './columns.ts';
import { describeBox, selectBox } from './panel.ts';
import type { Drawn, Page } from './state.ts';

/** Draws the current moment. */
export function drawMoment(page: Page): void {
  const snapshot = page.moments[page.moment];
  if (snapshot === undefined) return;
  page.columns = columnsOf(snapshot, page.places);
  const columns = drawFrames(page);
  const left = new Set(page.drawn.keys());
  const before = looksBefore(page);
  for (const [index, column] of page.columns.entries()) {
    const frame = columns[index];
    if (frame === undefined) continue;
    const sorted = [...column.boxes].sort((a, b) => a.from - b.from || a.lane - b.lane);
    const elements = sorted.map((box) => {
      const key = `${index} ${column.title} ${box.key}`;
      left.delete(key);
      return drawBox(page, key, box, index, column.lanes, before);
    });
    for (const [at, element] of elements.entries()) {
      element.setAttribute('aria-posinset', String(at + 1));
      element.setAttribute('aria-setsize', String(elements.length));
      // Does not reorder existing elements: an element that is inserted again has no transition.
      if (element.parentElement !== frame) frame.append(element);
    }
    // Each column has one stop of the Tab key; the arrow keys move within it.
    (elements.find((element) => element.classList.contains('selected')) ?? elements[0])?.setAttribute('tabindex', '0');
  }
  for (const key of left) {
    page.drawn.get(key)?.element.remove();
    page.drawn.delete(key);
  }
}

/** Draws the heads and frames of the columns. Reuses them if the columns are unchanged. */
function drawFrames(page: Page): HTMLElement[] {
  const heads = elementById('heads');
  const body = elementById('columns');
  const titles = JSON.stringify(page.columns.map(({ title }) => title));
  if (body.dataset['titles'] !== titles) {
    body.dataset['titles'] = titles;
    heads.replaceChildren(makeElement('div', 'head gutter', 'Address'));
    for (const child of body.querySelectorAll('.column')) child.remove();
    page.drawn.clear();
    for (const { title } of page.columns) {
      const name = makeElement('h2', '', title);
      name.title = title;
      heads.append(makeElement('div', 'head', name, makeElement('p', 'note')));
      const column = makeElement('div', 'column');
      column.setAttribute('role', 'listbox');
      column.setAttribute('aria-label', title);
      body.append(column);
    }
  }
  const widths = page.columns.map(({ lanes }) => Math.max(132, lanes * 88));
  const tracks = widths.map((width, index) => `minmax(${width}px, ${page.columns[index]?.lanes ?? 1}fr)`);
  const { style } = elementById('map');
  style.setProperty('--columns', `var(--gutter) ${tracks.join(' ')}`);
  style.setProperty('--room', `${widths.reduce((sum, width) => sum + width + 10, 0)}px`);
  for (const [index, head] of [...heads.querySelectorAll('.head:not(.gutter)')].entries()) {
    const note = head.querySelector('.note');
    if (note !== null) note.textContent = page.columns[index]?.note ?? '';
  }
  return [...body.querySelectorAll<HTMLElement>('.column')];
}

/** Draws a box: creates or moves it. */
function drawBox(
  page: Page,
  key: string,
  box: Box,
  column: number,
  lanes: number,
  before: ReadonlyMap<string, string> | undefined,
): HTMLElement {
  const top = page.tops[box.from] ?? 0;
  const height = Math.max(3, (page.tops[box.to] ?? top) - top);
  const drawn = page.drawn.get(key) ?? { element: makeBox(page, key), box, column };
  const { element } = drawn;
  const changed = before !== undefined && before.get(`${page.columns[column]?.title} ${box.key}`) !== lookOf(box);
  drawn.box = box;
  page.drawn.set(key, drawn);
  const size = height >= 18 ? '' : height >= 11 ? ' small' : ' tiny';
  element.className = `box ${box.look}${size}${changed ? ' changed' : ''}${page.selected === key ? ' selected' : ''}`;
  element.style.top = `${top}px`;
  element.style.height = `${height}px`;
  element.style.left = `${(box.lane / lanes) * 100}%`;
  element.style.width = `${100 / lanes}%`;
  element.tabIndex = -1;
  const label = element.querySelector('.label');
  if (label !== null) label.textContent = box.label;
  element.setAttribute('aria-label', box.facts.map(([name, value]) => `${name}: ${value}`).join('. '));
  return element;
}

/** Returns the appearance of all boxes at the moment before, to mark the changed ones. */
function looksBefore(page: Page): Map<string, string> | undefined {
  const snapshot = page.moments[page.moment - 1];
  if (snapshot === undefined) return undefined;
  const columns = columnsOf(snapshot, page.places);
  return new Map(columns.flatMap(({ title, boxes }) => boxes.map((box) => [`${title} ${box.key}`, lookOf(box)])));
}

/** Returns the visible properties of a box. */
function lookOf({ from, to, look, label }: Box): string {
  return `${from} ${to} ${look} ${label}`;
}

/** Creates a box. The panel describes it when the pointer is on it or it has the focus. */
function makeBox(page: Page, key: string): HTMLElement {
  const element = makeElement('div', 'box', makeElement('span', 'label'));
  element.dataset['key'] = key;
  element.setAttribute('role', 'option');
  element.setAttribute('aria-selected', 'false');
  element.addEventListener('pointerenter', () => describeBox(page, key));
  element.addEventListener('pointerleave', () => describeBox(page, page.selected));
  element.addEventListener('focus', () => selectBox(page, key));
  element.addEventListener('click', () => element.focus());
  return element;
}

/** Focuses a box and scrolls to it. */
export function focusBox({ element }: Drawn): void {
  element.focus({ preventScroll: true });
  element.scrollIntoView({ block: 'center', inline: 'nearest' });
}
