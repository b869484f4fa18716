/**
 * What a page of `peerdma view` is made of.
 */
import type { MemorySnapshot } from '../../guest/inspect.ts';
import type { JournalLine } from '../../journal/lines.ts';

/** All that the page knows, as it is in the page. */
export interface PageData {
  /** Name of the file. */
  readonly title: string;
  /** Guest memory at the first moment. */
  readonly snapshot: MemorySnapshot;
  /** When that was, and what became of it. A snapshot alone has none. */
  readonly history?: History;
  readonly parts: readonly AxisPart[];
}

/** The lines of a journal. */
export interface History {
  readonly time: string;
  readonly lines: readonly JournalLine[];
  /** Whether the last line was cut. */
  readonly cut: boolean;
  /** How many lines come before the first moment, and are not in the page. */
  readonly leftOut: number;
}

/** A stretch of guest-physical addresses, drawn from top to bottom. All that is drawn begins and ends where one does. */
export interface AxisPart {
  readonly start: string;
  readonly end: string;
  /** In pixels, at zoom 1. */
  readonly height: number;
  /** Nothing is here, ever: it is folded. */
  readonly gap: boolean;
}
