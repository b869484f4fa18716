/**
 * The data of a page of `peerdma view`.
 */
import type { MemorySnapshot } from '../../guest/inspect.ts';
import type { JournalLine } from '../../journal/lines.ts';

/** The data that is embedded in the page as JSON: the contents of a snapshot or a journal. */
export interface PageData {
  /** The snapshot, or the first state of a journal that the page has. */
  readonly snapshot: MemorySnapshot;
  /** The later states. A snapshot has none. */
  readonly history?: History;
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
