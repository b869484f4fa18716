/**
 * Above the map: how much there is, and what targets miss or keep.
 */
import { focusBox } from './draw.ts';
import { elementById, makeButton, makeElement } from './dom.ts';
import type { Drawn, Page } from './state.ts';

/** Draws both for the moment that the page is at. */
export function drawLists(page: Page): void {
  const snapshot = page.moments[page.moment];
  if (snapshot === undefined) return;
  const all = [...page.drawn.values()];
  const wrong = all.filter(({ box }) => /^target (?!mapped|skipped)/.test(box.look));
  const kept = wrong.filter(({ box }) => box.look === 'target quarantined').length;
  const counts: readonly (readonly [number, string, string, string])[] = [
    [snapshot.regions.length, 'region', 'regions', ''],
    [snapshot.flat.length, 'sub-mapping', 'sub-mappings', ''],
    [snapshot.targets.length, 'target', 'targets', ''],
    [wrong.length - kept, 'missing', 'missing', 'bad'],
    [kept, 'quarantined', 'quarantined', 'kept'],
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
  if (title !== null) title.textContent = `What targets miss or keep (${wrong.length})`;
}

/** One of them, which leads to its box. */
export function makeProblem(page: Page, drawn: Drawn): HTMLElement {
  const { box, column } = drawn;
  const reason = box.facts.find(([name]) => name === 'Reason')?.[1] ?? '';
  const button = makeButton('link', `${page.columns[column]?.title}: ${box.label}, ${box.start}`, () =>
    focusBox(drawn),
  );
  return makeElement('li', '', button, makeElement('span', 'why', reason));
}
