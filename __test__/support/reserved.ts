/**
 * The mappings of this process, as the kernel reports them.
 */
import { readFileSync } from 'node:fs';

/** Length of the largest inaccessible range of this process, such as a reservation. */
export function largestUntouchable(): bigint {
  let largest = 0n;
  for (const line of maps()) {
    const found = /^([0-9a-f]+)-([0-9a-f]+) ---p/.exec(line);
    if (found === null) continue;
    const length = BigInt(`0x${found[2]}`) - BigInt(`0x${found[1]}`);
    if (length > largest) largest = length;
  }
  return largest;
}

/** Whether a memory file of that name is mapped in this process. */
export function isFileMapped(name: string): boolean {
  return maps().some((line) => line.includes(`/memfd:${name} `));
}

function maps(): string[] {
  return readFileSync('/proc/self/maps', 'utf8').split('\n');
}
