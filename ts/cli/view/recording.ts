/**
 * Reads the input of `peerdma view` and `peerdma explain`: a snapshot or a journal.
 */
import { createReadStream } from 'node:fs';
import { PeerDmaError, asError } from '../../errors.ts';
import type { MemorySnapshot } from '../../guest/inspect.ts';
import { type JournalEntry, JournalReader, isJournal, parseSnapshot, requireString } from '../../journal/read.ts';
import { STANDARD_STREAM } from '../arguments.ts';
import { applyDelta } from '../../journal/delta.ts';
import type { JournalLine } from '../../journal/lines.ts';
import type { PageData } from './data.ts';

/** Number of characters that distinguish a journal from a snapshot. */
const HEAD_LENGTH = 64;

/**
 * Reads a file, or standard input for `-`. Holds one state of a journal, and the returned lines, in memory.
 *
 * @param last the number of lines of a journal to return at most; the last lines, with the state before them
 * @throws {PeerDmaError} `ERR_SYSTEM` when the file cannot be read; `ERR_INVALID_ARGUMENT` when it is invalid
 */
export async function readRecording(file: string, last: number): Promise<PageData> {
  /** A ring buffer of the last lines. */
  const ring: JournalLine[] = [];
  let count = 0;
  let first: { readonly snapshot: MemorySnapshot; readonly time: string } | undefined;
  const { snapshot, cut } = await readStates(file, ({ snapshot: state, ...line }) => {
    if (first === undefined) {
      first = { snapshot: state, time: line.time };
      return;
    }
    const oldest = count < last ? undefined : ring[count % last];
    if (oldest !== undefined) {
      const { delta, time } = oldest;
      first = { snapshot: delta === undefined ? first.snapshot : applyDelta(first.snapshot, delta), time };
    }
    ring[count++ % last] = line;
  });
  if (first === undefined) return { snapshot };
  const leftOut = Math.max(0, count - last);
  const lines = leftOut === 0 ? ring : [...ring.slice(count % last), ...ring.slice(0, count % last)];
  return { snapshot: first.snapshot, history: { time: first.time, lines, cut, leftOut } };
}

/** Reads the last state of a file, or of standard input for `-`. Holds one state of a journal at a time. */
export async function readLastSnapshot(file: string): Promise<MemorySnapshot> {
  return (await readStates(file, () => {})).snapshot;
}

interface LastState {
  readonly snapshot: MemorySnapshot;
  /** Whether the last line of a journal is truncated. */
  readonly cut: boolean;
}

/** @param onEntry called for each entry of a journal */
async function readStates(file: string, onEntry: (entry: JournalEntry) => void): Promise<LastState> {
  const pieces = piecesOf(file);
  let head = '';
  for (let next = await pieces.next(); next.done !== true; next = await pieces.next()) {
    head += next.value;
    if (head.trimStart().length >= HEAD_LENGTH) break;
  }
  if (!isJournal(head)) {
    const all = [head];
    let { length } = head;
    for await (const piece of pieces) {
      requireString((length += piece.length), file);
      all.push(piece);
    }
    return { snapshot: parseSnapshot(all.join('')), cut: false };
  }
  const reader = new JournalReader();
  let last: MemorySnapshot | undefined;
  const take = (entries: Iterable<JournalEntry>): void => {
    for (const entry of entries) {
      last = entry.snapshot;
      onEntry(entry);
    }
  };
  take(reader.add(head));
  for await (const piece of pieces) take(reader.add(piece));
  take(reader.end());
  if (last === undefined) throw new TypeError('a journal has a first line'); // not reached: `end` throws without one
  return { snapshot: last, cut: reader.isCut };
}

async function* piecesOf(file: string): AsyncGenerator<string, void, undefined> {
  try {
    const stream = file === STANDARD_STREAM ? process.stdin.setEncoding('utf8') : createReadStream(file, 'utf8');
    for await (const piece of stream) yield String(piece);
  } catch (thrown) {
    const error: NodeJS.ErrnoException = asError(thrown);
    const message = `${file}: read failed: ${error.message}`;
    throw new PeerDmaError('ERR_SYSTEM', message, { errno: error.code, cause: thrown });
  }
}
