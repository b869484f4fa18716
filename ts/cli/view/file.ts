/**
 * Reads what `peerdma view` and `peerdma explain` are given: a snapshot or a journal.
 */
import { createReadStream } from 'node:fs';
import { PeerDmaError, asError } from '../../errors.ts';
import type { MemorySnapshot } from '../../guest/inspect.ts';
import { type JournalEntry, JournalReader, isJournal, parseSnapshot } from '../../journal/read.ts';
import { STANDARD_STREAM } from '../arguments.ts';
import type { History } from './data.ts';

/** How many characters distinguish a journal from a snapshot. */
const HEAD = 64;

/** What a file holds. */
export interface Recording {
  /** The only one, or that with which a journal begins. */
  readonly snapshot: MemorySnapshot;
  /** Of a journal. */
  readonly history?: History;
}

/**
 * Reads a file, or standard input for `-`.
 *
 * @throws {PeerDmaError} `ERR_SYSTEM`, `ERR_INVALID_ARGUMENT`
 */
export async function readRecording(file: string): Promise<Recording> {
  const entries: Omit<JournalEntry, 'snapshot'>[] = [];
  let first: MemorySnapshot | undefined;
  const { snapshot, cut } = await readStates(file, ({ snapshot: state, ...entry }) => {
    first ??= state;
    entries.push(entry);
  });
  const [begin, ...lines] = entries;
  if (first === undefined || begin === undefined) return { snapshot };
  return { snapshot: first, history: { time: begin.time, lines, cut } };
}

/** Guest memory as it was last, of a file as above. Holds one state of a journal at a time. */
export async function readLastSnapshot(file: string): Promise<MemorySnapshot> {
  return (await readStates(file, () => {})).snapshot;
}

interface LastState {
  readonly snapshot: MemorySnapshot;
  /** Whether the last line of a journal is cut. */
  readonly cut: boolean;
}

/** @param note is called for each entry of a journal */
async function readStates(file: string, note: (entry: JournalEntry) => void): Promise<LastState> {
  const pieces = piecesOf(file);
  let head = '';
  for (let next = await pieces.next(); next.done !== true; next = await pieces.next()) {
    head += next.value;
    if (head.trimStart().length >= HEAD) break;
  }
  if (!isJournal(head)) {
    const all = [head];
    for await (const piece of pieces) all.push(piece);
    return { snapshot: parseSnapshot(all.join('')), cut: false };
  }
  const reader = new JournalReader();
  let last: MemorySnapshot | undefined;
  const take = (piece: string): void => {
    for (const entry of reader.add(piece)) {
      last = entry.snapshot;
      note(entry);
    }
  };
  take(head);
  for await (const piece of pieces) take(piece);
  const cut = reader.end();
  if (last === undefined) throw new TypeError('a journal has a first line'); // `end` has thrown
  return { snapshot: last, cut };
}

async function* piecesOf(file: string): AsyncGenerator<string, void, undefined> {
  try {
    const stream = file === STANDARD_STREAM ? process.stdin.setEncoding('utf8') : createReadStream(file, 'utf8');
    for await (const piece of stream) yield String(piece);
  } catch (thrown) {
    const error: NodeJS.ErrnoException = asError(thrown);
    throw new PeerDmaError('ERR_SYSTEM', `can't read ${file}: ${error.message}`, { errno: error.code, cause: thrown });
  }
}
