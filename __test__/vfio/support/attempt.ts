/**
 * Attempts to open a device in another process. One process makes several: starting it takes longer than an attempt.
 */
import { chmodSync, statSync } from 'node:fs';

export interface Attempt {
  /** Size of RAM. */
  readonly mebibytes: number;
  /** Files that nobody has permission to open meanwhile. */
  readonly files?: readonly string[];
}

/** Calls `act` while files cannot be opened. */
export async function withoutFiles<T>(files: readonly string[], act: () => Promise<T>): Promise<T> {
  const modes = files.map((path) => ({ path, mode: statSync(path).mode }));
  for (const { path } of modes) chmodSync(path, 0);
  try {
    return await act();
  } finally {
    for (const { path, mode } of modes) chmodSync(path, mode);
  }
}
