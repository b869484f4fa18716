/**
 * Folders that are removed at the end of the test.
 */
import type { ExecutionContext } from 'ava';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A new, empty folder. */
export function scratchFolder(t: Pick<ExecutionContext, 'teardown'>): string {
  const folder = mkdtempSync(join(tmpdir(), 'peerdma-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
