/**
 * Starts the page: reads its data, draws it and adds its event listeners.
 */
import { applyDelta } from '../../../journal/delta.ts';
import type { MemorySnapshot } from '../../../guest/inspect.ts';
import type { PageData } from '../data.ts';
import { drawAxis } from './draw.ts';
import { elementById } from './dom.ts';
import { keyPressed } from './keys.ts';
import { explainAddress } from './panel.ts';
import type { Page } from './state.ts';
import { drawAll, startTimeline } from './timeline.ts';

/** Starts the page. The script calls it after the elements are parsed. */
export function startPage(): void {
  const data: PageData = JSON.parse(elementById('data').textContent ?? '');
  const page: Page = {
    data,
    places: placesOn(data),
    moments: momentsOf(data),
    moment: 0,
    zoom: 1,
    tops: [],
    columns: [],
    drawn: new Map(),
    selected: undefined,
  };
  drawAxis(page);
  drawAll(page);
  if (data.history !== undefined) startTimeline(page);
  document.addEventListener('keydown', (event) => keyPressed(page, event));
  const asked = elementById('asked') as HTMLInputElement;
  asked.addEventListener('input', () => explainAddress(page, asked.value));
  const zoom = elementById('zoom') as HTMLInputElement;
  zoom.addEventListener('input', () => {
    page.zoom = 2 ** Number(zoom.value);
    drawAxis(page);
    drawAll(page);
  });
}

/** Returns the state of guest memory at each moment. */
export function momentsOf({ snapshot, history }: PageData): MemorySnapshot[] {
  const moments = [snapshot];
  let last = snapshot;
  for (const { delta } of history?.lines ?? []) {
    if (delta !== undefined) last = applyDelta(last, delta);
    moments.push(last);
  }
  return moments;
}

/** Returns the index of each boundary address on the axis. */
export function placesOn({ parts }: PageData): Map<string, number> {
  const places = new Map(parts.map(({ start }, index) => [start, index]));
  const last = parts.at(-1);
  if (last !== undefined) places.set(last.end, parts.length);
  return places;
}
