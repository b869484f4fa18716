/**
 * A memory file that can be truncated, unlike those that the package creates.
 */
import type { ExecutionContext } from 'ava';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { MemoryFile } from '../../ts/index.ts';

/** Creates a file in shared memory, which is closed at the end of the test. Truncate it by its descriptor. */
export function truncatableFile(t: ExecutionContext, length: bigint): { fd: number; file: MemoryFile } {
  const folder = mkdtempSync('/dev/shm/peerdma-');
  const fd = openSync(`${folder}/memory`, 'wx+');
  rmSync(folder, { recursive: true });
  ftruncateSync(fd, Number(length));
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => {
    file.close();
    closeSync(fd);
  });
  return { fd, file };
}
