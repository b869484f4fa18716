/**
 * The page of `peerdma view`: reads its data, draws it and adds its event listeners.
 */
import type { PageData } from '../../cli/view/data.ts';
import type { MemorySnapshot } from '../../guest/inspect.ts';
import { type SnapshotDelta, applyDelta } from '../../journal/delta.ts';
import { elementById, readData } from '../dom.ts';
import { axisOf, placesOn } from './axis.ts';
import { drawAxis } from './draw-axis.ts';
import { moveFocus } from './keys.ts';
import { explainAddress } from './panel.ts';
import type { Page } from './state.ts';
import { drawAll, startTimeline } from './timeline.ts';

const { snapshot, history } = readData<PageData>();
const deltas = (history?.lines ?? []).map(({ delta }) => delta);
const parts = axisOf(
  snapshot,
  deltas.filter((delta) => delta !== undefined),
);
const page: Page = {
  history,
  parts,
  places: placesOn(parts),
  moments: momentsOf(snapshot, deltas),
  moment: 0,
  zoom: 1,
  tops: [],
  columns: [],
  drawn: new Map(),
  selected: undefined,
};
draw();
if (history !== undefined) startTimeline(page);
document.addEventListener('keydown', (event) => moveFocus(page, event));
const asked = elementById('asked') as HTMLInputElement;
asked.addEventListener('input', () => explainAddress(page, asked.value));
const zoom = elementById('zoom') as HTMLInputElement;
zoom.addEventListener('input', () => {
  page.zoom = 2 ** Number(zoom.value);
  draw();
});

function draw(): void {
  drawAxis(page);
  drawAll(page);
}

/** Returns the state of guest memory at each moment: a delta of `undefined` repeats the state before. */
function momentsOf(first: MemorySnapshot, changes: readonly (SnapshotDelta | undefined)[]): MemorySnapshot[] {
  const moments = [first];
  let last = first;
  for (const delta of changes) {
    if (delta !== undefined) last = applyDelta(last, delta);
    moments.push(last);
  }
  return moments;
}
