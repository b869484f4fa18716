/**
 * Keyboard navigation of the map: Tab moves between columns, the arrow keys between boxes.
 */
import { focusBox } from './draw-map.ts';
import type { Drawn, Page } from './state.ts';

/** Moves the focus if the key is a navigation key. */
export function moveFocus(page: Page, event: KeyboardEvent): void {
  if (page.selected === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
  const here = page.drawn.get(page.selected);
  if (here === undefined || here.element !== document.activeElement) return;
  const next = neighbour(page, here, event.key);
  if (next === undefined) return;
  event.preventDefault();
  focusBox(next);
}

/** Returns the box in the direction of a key. */
function neighbour(page: Page, here: Drawn, key: string): Drawn | undefined {
  const inColumn = (column: number): Drawn[] =>
    [...page.drawn.values()]
      .filter((one) => one.column === column)
      .sort((a, b) => a.box.from - b.box.from || a.box.lane - b.box.lane);
  const own = inColumn(here.column);
  const at = own.indexOf(here);
  switch (key) {
    case 'ArrowDown':
      return own[at + 1];
    case 'ArrowUp':
      return own[at - 1];
    case 'Home':
      return own[0];
    case 'End':
      return own.at(-1);
    case 'ArrowLeft':
    case 'ArrowRight': {
      const step = key === 'ArrowLeft' ? -1 : 1;
      for (let column = here.column + step; column >= 0 && column < page.columns.length; column += step) {
        const there = inColumn(column);
        // The box at the same address, or else the nearest one.
        const distance = ({ box }: Drawn): number =>
          box.from <= here.box.from && here.box.from < box.to ? -1 : Math.abs(box.from - here.box.from);
        const nearest = there.sort((a, b) => distance(a) - distance(b))[0];
        if (nearest !== undefined) return nearest;
      }
      return undefined;
    }
    default:
      return undefined;
  }
}
