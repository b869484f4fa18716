/**
 * Draws the address axis beside the map.
 */
import { roundedSize } from '../../size.ts';
import { elementById, makeElement } from '../dom.ts';
import type { Page } from './state.ts';

/** Draws the axis: the positions of its parts, their addresses and the folded gaps. */
export function drawAxis(page: Page): void {
  const { parts } = page;
  page.tops = [0];
  for (const { height, gap } of parts) {
    page.tops.push((page.tops.at(-1) ?? 0) + (gap ? height : Math.max(3, height * page.zoom)));
  }
  const body = elementById('columns');
  for (const old of body.querySelectorAll('.tick, .fold')) old.remove();
  body.style.height = `${page.tops.at(-1) ?? 0}px`;
  const ticks: HTMLElement[] = [];
  let free = 0;
  for (const [index, { start, end, height, gap }] of parts.entries()) {
    const top = page.tops[index] ?? 0;
    if (gap) {
      const text = height < 16 ? '' : `${roundedSize(BigInt(end) - BigInt(start))} empty, folded`;
      const fold = makeElement('div', 'fold', makeElement('span', '', text));
      fold.style.top = `${top}px`;
      fold.style.height = `${height}px`;
      fold.title = `${start}..${end}: ${roundedSize(BigInt(end) - BigInt(start))} empty`;
      ticks.push(fold);
    }
    if (top < free || (gap && height < 16)) continue; // no room: the address of the part before stays
    ticks.push(makeTick(start, top));
    free = top + 13;
  }
  const last = parts.at(-1);
  if (last !== undefined) ticks.push(makeTick(last.end, page.tops.at(-1) ?? 0));
  body.prepend(...ticks);
}

/** Creates the label of an address beside the axis. */
function makeTick(address: string, top: number): HTMLElement {
  const tick = makeElement('div', 'tick', address);
  tick.style.top = `${top}px`;
  return tick;
}
