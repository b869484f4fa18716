/**
 * Makes RAM ready for DMA: creates it, faults it in and pins it. Runs in the testbed: `ram-ready.ts BDF PROGRAM`; or
 * under the stub of VFIO, which does not pin: `ram-ready.ts stub PROGRAM`. Prints figures as JSON.
 */
import { memorySettled } from '#native';
import { GuestMemory, type RamOptions } from '../ts/index.ts';
import { nanoseconds } from './compile.ts';
import { type Figure, time } from './measure.ts';
import { FAULT_IN_THREADS, STUB_GROUP, groupOf, joinType1 } from './targets.ts';

const GIB = 1n << 30n;
/** The first address above 4 GiB, so that no mapping overlaps the interrupt range. */
const START = 4n * GIB;
const GOAL = 1.05;

/** The kinds of memory, by the C program's name and the options of {@link GuestMemory.create}. */
const KINDS: readonly { readonly name: string; readonly program: string; readonly options: Partial<RamOptions> }[] = [
  { name: 'a file, pages of 4 KiB', program: 'file', options: {} },
  {
    name: 'private, transparent huge pages',
    program: 'huge-private',
    options: { private: true, hugePages: 'transparent' },
  },
];

const [device = '', program = ''] = process.argv.slice(2);
const isStub = device === 'stub';
const group = isStub ? STUB_GROUP : groupOf(device);
/** Smaller in an emulated guest, which is slow and has little memory. */
const { gibs, rounds } = isStub ? { gibs: 4n, rounds: 5 } : { gibs: 1n, rounds: 3 };
const length = gibs * GIB;

async function ours(options: Partial<RamOptions>): Promise<number> {
  const { join, close } = await joinType1(group); // not for longer: a group is open once
  let memory: GuestMemory | undefined;
  const [taken = NaN] = await time(1, async () => {
    memory = await GuestMemory.create({ ram: [{ start: START, length, ...options }] });
    await join(memory);
  });
  await memory?.close();
  close();
  await memorySettled(); // the next round would wait for it
  return taken;
}

const pinned = isStub ? 'mapped without the ioctl' : 'pinned by type1 in the testbed';
const figures: Figure[] = [];
for (const { name, program: kind, options } of KINDS) {
  const [us, c]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    const inC = [length, FAULT_IN_THREADS, 1, kind, `/dev/vfio/${group}`, START].map(String);
    c.push(...nanoseconds(program, ...inC));
    us.push(await ours(options));
  }
  // The fastest of each, as for smaller memory.
  const [mine, theirs] = [Math.min(...us), Math.min(...c)];
  figures.push({
    name: `${gibs} GiB of RAM created, faulted in and ${pinned}, against C: ${name}`,
    measured: `${(mine / 1e6).toFixed(0)} ms against ${(theirs / 1e6).toFixed(0)} ms: ${(mine / theirs).toFixed(2)}×`,
    goal: `≤ ${GOAL}×`,
    met: mine / theirs <= GOAL,
  });
}
console.log(JSON.stringify(figures));
