/**
 * The page of `peerdma topology`: describes the selected pair, and marks its path in the picture.
 */
import type { PageData } from '../../cli/topology/data.ts';
import { elementById, makeElement, readData } from '../dom.ts';

const pairs = readData<PageData>();
const buttons = [...document.querySelectorAll<HTMLElement>('.pair')];
const picture = document.querySelector('svg');

for (const button of buttons) {
  for (const event of ['click', 'mouseenter', 'focus']) button.addEventListener(event, () => selectPair(button, true));
}
if (buttons[0] !== undefined) selectPair(buttons[0], false);

function selectPair(selected: HTMLElement, marksPath: boolean): void {
  const pair = pairs[selected.dataset['pair'] ?? ''];
  if (pair === undefined) return;
  for (const button of buttons) button.setAttribute('aria-pressed', String(button === selected));
  elementById('why').replaceChildren(
    ...makeSection(pair.title, pair.reasons),
    ...makeSection('Prerequisites', pair.prerequisites),
    ...makeSection('Notes', pair.notes),
    ...makeSection('BARs of the target', pair.bars),
  );
  picture?.classList.toggle('aimed', marksPath);
  for (const box of picture?.querySelectorAll<SVGElement>('[data-address]') ?? []) {
    box.classList.toggle('on-path', marksPath && pair.path.includes(box.dataset['address'] ?? ''));
  }
}

/** Creates a list with a heading; nothing for an empty list. */
function makeSection(title: string, texts: readonly string[]): HTMLElement[] {
  if (texts.length === 0) return [];
  return [makeElement('h3', '', title), makeElement('ul', '', ...texts.map((text) => makeElement('li', '', text)))];
}
