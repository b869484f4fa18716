/**
 * The memory of the process for each sub-mapping. Runs with `--expose-gc`, for type1 under the stub of VFIO
 * (`bench/c/no-ioctl.c`): `memory-per-mapping.ts no-op|type1`; prints figures as JSON.
 */
import { readFileSync } from 'node:fs';
import { setImmediate } from 'node:timers/promises';
import { manyMappings } from './many-mappings.ts';
import { type Figure, formatCounts } from './measure.ts';
import { joinNoOp, type1WithoutIoctl } from './targets.ts';

const MAPPINGS = 100_000;
const GOAL = 400;

const isType1 = process.argv[2] === 'type1';
const type1 = isType1 ? await type1WithoutIoctl() : undefined;
const join = type1?.join ?? joinNoOp;

/** Bytes in use: of JavaScript's heap, and other resident bytes. */
interface Usage {
  readonly heap: number;
  readonly native: number;
}

/**
 * Guest memory itself is not counted, because its pages are shared (`RssShmem`). The kernel's page tables and records
 * of mappings are not counted either.
 */
async function usage(): Promise<Usage> {
  for (let round = 0; round < 3; round++) {
    await setImmediate(); // lets finalizers run
    globalThis.gc?.();
  }
  const { heapUsed, heapTotal } = process.memoryUsage();
  const [, kilobytes = NaN] = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  return { heap: heapUsed, native: Number(kilobytes) * 1024 - heapTotal };
}

const warmUp = await manyMappings(1_000, 0n);
await (await join(warmUp.memory)).remove();
await warmUp.memory.close();
warmUp.file.close();

const before = await usage();
const { memory, file } = await manyMappings(MAPPINGS, 0n);
const joining = await usage();
await join(memory);
const after = await usage();
await memory.close();
file.close();
type1?.close();

function growth(from: Usage, to: Usage): { heap: number; native: number; both: number } {
  const heap = (to.heap - from.heap) / MAPPINGS;
  const native = Math.max(0, to.native - from.native) / MAPPINGS;
  return { heap, native, both: heap + native };
}

const { heap, native, both } = growth(before, after);
const target = growth(joining, after).both;
const parts = `${heap.toFixed(0)} of the heap, ${native.toFixed(0)} besides; the target's part is ${target.toFixed(0)}`;
const figure: Figure = {
  name: `memory of a sub-mapping of ${formatCounts([MAPPINGS])}, ${isType1 ? 'type1 without ioctl' : 'no-op custom target'}`,
  measured: `${both.toFixed(0)} bytes: ${parts}`,
  goal: `≤ ${GOAL} bytes`,
  met: both <= GOAL,
};
console.log(JSON.stringify([figure]));
