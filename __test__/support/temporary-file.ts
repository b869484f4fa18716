/**
 * An ordinary file that is removed at the end of the test.
 */
import type { ExecutionContext } from 'ava';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** The descriptor of a new file of `length` zero bytes, closed at the end of the test. */
export function temporaryFile(t: ExecutionContext, length: number): number {
  const folder = mkdtempSync(join(tmpdir(), 'peerdma-'));
  const fd = openSync(join(folder, 'memory'), 'w+');
  rmSync(folder, { recursive: true });
  t.teardown(() => closeSync(fd));
  ftruncateSync(fd, length);
  return fd;
}
