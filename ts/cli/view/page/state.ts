/**
 * What the functions of the page hand one another.
 */
import type { MemorySnapshot } from '../../../guest/inspect.ts';
import type { Box, Column, Places } from '../columns.ts';
import type { PageData } from '../data.ts';

/** One box as it stands on the page. */
export interface Drawn {
  readonly element: HTMLElement;
  box: Box;
  column: number;
}

/** The page. */
export interface Page {
  readonly data: PageData;
  readonly places: Places;
  /** Guest memory at each moment. */
  readonly moments: readonly MemorySnapshot[];
  /** Index of the moment that is shown. */
  moment: number;
  /** Of heights. */
  zoom: number;
  /** Pixels from the top at which each part of the axis begins, and the last ends. */
  tops: number[];
  columns: Column[];
  readonly drawn: Map<string, Drawn>;
  /** What the panel shows, when nothing is pointed at: the key of a box. */
  selected: string | undefined;
}
