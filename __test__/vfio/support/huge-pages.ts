/**
 * The pool of huge pages of 2 MiB.
 */
import type { ExecutionContext } from 'ava';
import { readFileSync, writeFileSync } from 'node:fs';

const POOL = '/proc/sys/vm/nr_hugepages';

/** Whether tests may change the pool: in the testbed. */
export const canReserveHugePages = process.env['PEERDMA_TESTBED_KERNEL'] !== undefined;

/** The number of huge pages that nobody uses. */
export function freeHugePages(): number {
  return Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
}

/** Reserves huge pages until the end of the test, if tests may. Returns the number of free ones. */
export function reserveHugePages(t: ExecutionContext, count: number): number {
  if (canReserveHugePages) {
    const before = readFileSync(POOL, 'utf8');
    writeFileSync(POOL, `${count}`);
    t.teardown(() => writeFileSync(POOL, before));
  }
  return freeHugePages();
}
