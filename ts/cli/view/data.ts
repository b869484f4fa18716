/**
 * The data of a page of `peerdma view`.
 */
import type { MemorySnapshot } from '../../guest/inspect.ts';
import type { JournalLine } from '../../journal/lines.ts';

/** The data that is embedded in the page as JSON. */
export interface PageData {
  /** Name of the input file. */
  readonly title: string;
  /** The state of guest memory at the first moment. */
  readonly snapshot: MemorySnapshot;
  /** The later states. A page of a snapshot has none. */
  readonly history?: History;
  /** The address axis, in order. */
  readonly parts: readonly AxisPart[];
}

/** The lines of a journal. */
export interface History {
  /** Time of the first moment, in ISO 8601. */
  readonly time: string;
  readonly lines: readonly JournalLine[];
  /** Whether the last line is truncated. */
  readonly cut: boolean;
  /** Number of lines before the first moment, which the page leaves out. */
  readonly leftOut: number;
}

/** A range of guest-physical addresses on the axis. Every box begins and ends at the boundary of a part. */
export interface AxisPart {
  readonly start: string;
  readonly end: string;
  /** Height in pixels at zoom 1. */
  readonly height: number;
  /** Whether the range is empty at all moments, so that the page folds it. */
  readonly gap: boolean;
}
