/**
 * Reads what `peerdma view` and `peerdma explain` are given: a snapshot or a journal.
 */
import { readFileSync } from 'node:fs';
import { PeerDmaError, asError } from '../../errors.ts';
import type { MemorySnapshot } from '../../guest/inspect.ts';
import { applyDelta } from '../../journal/delta.ts';
import { isJournal, parseJournal, parseSnapshot } from '../../journal/read.ts';
import type { History } from './data.ts';

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
export function readRecording(file: string): Recording {
  const text = readText(file);
  if (!isJournal(text)) return { snapshot: parseSnapshot(text) };
  const { start, lines, cut } = parseJournal(text);
  return { snapshot: start.snapshot, history: { time: start.time, lines, cut } };
}

/** Guest memory as it was last. */
export function lastOf({ snapshot, history }: Recording): MemorySnapshot {
  let last = snapshot;
  for (const { delta } of history?.lines ?? []) if (delta !== undefined) last = applyDelta(last, delta);
  return last;
}

function readText(file: string): string {
  try {
    return readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (thrown) {
    const error: NodeJS.ErrnoException = asError(thrown);
    throw new PeerDmaError('ERR_SYSTEM', `can't read ${file}: ${error.message}`, { errno: error.code, cause: thrown });
  }
}
