/**
 * What the lines of a journal are. Each is a JSON object; the first says what the guest memory was when recording began, each
 * later one what has become of it.
 */
import type { MemoryAction } from '../dma/events.ts';
import type { MemorySnapshot } from '../guest/inspect.ts';
import type { BarSnapshot } from '../pci/bar-status.ts';
import type { SnapshotDelta } from './delta.ts';

/** The first line of a journal. */
export interface JournalStart {
  /** What this is. */
  readonly journal: 'peerdma';
  /** Of the format: 1. */
  readonly version: 1;
  /** ISO 8601, to the millisecond. */
  readonly time: string;
  /** Guest memory when recording began. */
  readonly snapshot: MemorySnapshot;
}

/** A later line of a journal. */
export interface JournalLine {
  /** ISO 8601, to the millisecond. */
  readonly time: string;
  /** What has happened, for people. */
  readonly text: string;
  /** What guest memory was asked to do. */
  readonly action?: MemoryAction;
  /** Why it failed, if it did. */
  readonly error?: JournalError;
  /** What targets were made to do, in order, what was undone included: `map TARGET 0x0..0x1000`. */
  readonly dma?: readonly string[];
  /** What has changed. Left out where nothing has. */
  readonly delta?: SnapshotDelta;
  /** A BAR that the guest has placed, moved or switched off; the line before it says what that did to memory. */
  readonly bar?: BarSnapshot & {
    /** PCI address. */
    readonly device: string;
  };
}

/** An error in a journal. */
export interface JournalError {
  /** An {@link ErrorCode} where the error had one. */
  readonly code?: string;
  /** What went wrong, for people. */
  readonly message: string;
}
