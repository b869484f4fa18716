/**
 * Gives back what a journal recorded: the state of guest memory after each of its lines.
 */
import { PeerDmaError, asError } from '../errors.ts';
import type { MemorySnapshot } from '../guest/inspect.ts';
import { checkLine, checkSnapshot, checkStart } from './check-lines.ts';
import { applyDelta } from './delta.ts';
import type { JournalLine, JournalStart } from './lines.ts';

/** A journal that was read. */
export interface JournalContents {
  readonly start: JournalStart;
  readonly lines: readonly JournalLine[];
  /** Whether its last line is cut, which is left out then: the process ended while it was written. */
  readonly cut: boolean;
}

/** One line of a journal, with guest memory as it was after it. */
export interface JournalEntry extends JournalLine {
  /** Guest memory after the line. */
  readonly snapshot: MemorySnapshot;
}

/**
 * The lines of a journal with the state after each, the state it begins with first.
 *
 * @param text what {@link recordJournal} has written
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for what is no journal: the message says which line is wrong, and how
 */
export function readJournal(text: string): JournalEntry[] {
  const { start, lines } = parseJournal(text);
  let { snapshot } = start;
  const first: JournalEntry = { time: start.time, text: 'Recording begins.', snapshot };
  return [
    first,
    ...lines.map((line) => {
      if (line.delta !== undefined) snapshot = applyDelta(snapshot, line.delta);
      return { ...line, snapshot };
    }),
  ];
}

/** The lines of a journal, each checked, also that it fits those before it. @internal */
export function parseJournal(text: string): JournalContents {
  const rows = text.split('\n');
  const cut = rows.pop() !== ''; // each line ends with a line feed
  const [head = '', ...rest] = rows;
  const start = inLine(1, () => checkStart(parse(head), 'the line'));
  let { snapshot } = start;
  const lines = rest.map((row, index) =>
    inLine(index + 2, () => {
      const line = checkLine(parse(row), 'the line');
      if (line.delta !== undefined) snapshot = applyDelta(snapshot, line.delta);
      return line;
    }),
  );
  return { start, lines, cut };
}

/** Whether a text begins as a journal does, rather than a snapshot. @internal */
export function isJournal(text: string): boolean {
  return /^\s*\{\s*"journal"/.test(text);
}

/**
 * A snapshot from JSON.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for what is none: the message says what is wrong where
 * @internal
 */
export function parseSnapshot(text: string): MemorySnapshot {
  return checkSnapshot(parse(text), 'the snapshot');
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `not JSON, or cut: ${asError(error).message}`, { cause: error });
  }
}

function inLine<T>(number: number, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `line ${number} of the journal: ${asError(error).message}`, {
      cause: error,
    });
  }
}
