/**
 * The lists above the map: the counts, and the mappings that failed or are quarantined.
 */
import { elementById, makeElement } from '../dom.ts';
import { focusBox } from './draw-map.ts';
import type { Drawn, Page } from './state.ts';

/** Draws the lists for the current moment. */
export function drawLists(page: Page): void {
  const snapshot = page.moments[page.moment];
  if (snapshot === undefined) return;
  const all = [...page.drawn.values()];
  const wrong = all.filter(({ box }) => /^target (?!mapped|skipped)/.test(box.look));
  const quarantined = wrong.filter(({ box }) => box.look === 'target quarantined').length;
  const counts: readonly (readonly [number, string, string, string])[] = [
    [snapshot.regions.length, 'region', 'regions', ''],
    [snapshot.flat.length, 'sub-mapping', 'sub-mappings', ''],
    [snapshot.targets.length, 'target', 'targets', ''],
    [wrong.length - quarantined, 'not mapped', 'not mapped', 'bad'],
    [quarantined, 'quarantined', 'quarantined', 'kept'],
  ];
  elementById('counts').replaceChildren(
    ...counts.map(([count, one, many, look]) =>
      makeElement('li', count > 0 ? look : '', makeElement('b', '', String(count)), ` ${count === 1 ? one : many}`),
    ),
  );
  const problems = elementById('problems');
  problems.hidden = wrong.length === 0;
  const list = problems.querySelector('ul');
  const shown = wrong.slice(0, 100);
  list?.replaceChildren(...shown.map((drawn) => makeProblem(page, drawn)));
  if (wrong.length > shown.length) list?.append(makeElement('li', '', `and ${wrong.length - shown.length} more`));
  const title = problems.querySelector('summary');
  if (title !== null) title.textContent = `Problems of targets (${wrong.length})`;
}

/** Creates the entry of a problem, which links to its box. */
function makeProblem(page: Page, drawn: Drawn): HTMLElement {
  const { box, column } = drawn;
  const reason = box.facts.find(([name]) => name === 'Reason')?.[1] ?? '';
  const button = makeElement('button', 'link', `${page.columns[column]?.title}: ${box.label}, ${box.start}`);
  button.addEventListener('click', () => focusBox(drawn));
  return makeElement('li', '', button, makeElement('span', 'why', reason));
}
