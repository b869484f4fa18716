/**
 * The state that the functions of the page share.
 */
import type { History } from '../../cli/view/data.ts';
import type { MemorySnapshot } from '../../guest/inspect.ts';
import type { AxisPart, Places } from './axis.ts';
import type { Box, Column } from './box.ts';

/** A box that is drawn on the page. */
export interface Drawn {
  readonly element: HTMLElement;
  box: Box;
  column: number;
}

/** The state of the page. */
export interface Page {
  /** The lines of a journal; `undefined` for a snapshot. */
  readonly history: History | undefined;
  /** The address axis, in order. */
  readonly parts: readonly AxisPart[];
  readonly places: Places;
  /** The state of guest memory at each moment. */
  readonly moments: readonly MemorySnapshot[];
  /** Index of the current moment. */
  moment: number;
  /** Factor of the heights of the parts. */
  zoom: number;
  /** Distance of each part of the axis from the top, in pixels, and that of the end of the last part. */
  tops: number[];
  columns: Column[];
  readonly drawn: Map<string, Drawn>;
  /** Key of the selected box, which the panel describes unless the pointer is on another box. */
  selected: string | undefined;
}
