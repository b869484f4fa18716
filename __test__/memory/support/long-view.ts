/**
 * Maps more of a file than an `ArrayBuffer` can have, several times, and says what that throws.
 * A program of its own: a view that is freed twice aborts the process.
 */
import { NativeMemoryFile, memorySettled } from '#native';
import { readFileSync } from 'node:fs';
import { MemoryFile, fileMemoryOf } from '../../../ts/memory/memory-file.ts';
import { PeerDmaError } from '../../../ts/errors.ts';

const LENGTH = BigInt(process.argv[2] ?? 0);

/** How many mappings of the file this process has. */
function mappings(name: string): number {
  return readFileSync('/proc/self/maps', 'utf8').split(name).length - 1;
}

const thrown: unknown[] = [];
const native = NativeMemoryFile.create(LENGTH, 'long', 0);
const file = MemoryFile.create(LENGTH, { name: 'long' });
for (let round = 0; round < 3; round++) {
  for (const view of [() => native.view(0n, LENGTH), () => fileMemoryOf(file).view(0n, LENGTH)]) {
    try {
      view();
      thrown.push('nothing');
    } catch (error) {
      thrown.push(error instanceof PeerDmaError ? [error.code, error.message] : String(error));
    }
  }
}
await memorySettled();
process.stdout.write(JSON.stringify({ thrown, mapped: mappings('memfd:long') }));
