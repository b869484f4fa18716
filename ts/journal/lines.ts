/**
 * The lines of a journal. Each is a JSON object: the first has the state of guest memory when recording began, each
 * later one has a change.
 */
import type { MemoryAction } from '../dma/events.ts';
import type { ErrorCode } from '../errors.ts';
import type { MemorySnapshot } from '../guest/inspect.ts';
import type { BarSnapshot } from '../pci/bar-status.ts';
import type { SnapshotDelta } from './delta.ts';

/** The first line of a journal. */
export interface JournalStart {
  /** Marks the file as a journal. */
  readonly journal: 'peerdma';
  /** Version of the format. */
  readonly version: 1;
  /** ISO 8601, to the millisecond. */
  readonly time: string;
  /** The state of guest memory when recording began. */
  readonly snapshot: MemorySnapshot;
}

/** A later line of a journal. */
export interface JournalLine {
  /** ISO 8601, to the millisecond. */
  readonly time: string;
  /** A description of the change, for people. */
  readonly text: string;
  /** The requested operation. */
  readonly action?: MemoryAction;
  /** The error, if the operation failed. */
  readonly error?: JournalError;
  /** Operations of the targets in order, with those of a rollback: `map TARGET 0x0..0x1000`. */
  readonly dma?: readonly string[];
  /** The difference from the state before. Left out if nothing has changed. */
  readonly delta?: SnapshotDelta;
  /** A BAR that the guest has placed, moved or disabled. The line before it has the change of guest memory. */
  readonly bar?: BarSnapshot & {
    /** PCI address of the device. */
    readonly bdf: string;
  };
}

/** An error in a journal. */
export interface JournalError {
  /** The code, if it is a `PeerDmaError`. */
  readonly code?: ErrorCode;
  /** The message of the error. */
  readonly message: string;
}
