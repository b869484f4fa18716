/**
 * The cost of an operation on one range among few and many other mappings. Also measures `inspect()`, which lists all
 * of them.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { AssignedDevice } from '../ts/index.ts';
import { DmaBuffer } from '../ts/driver.ts';
import { recordJournal } from '../ts/inspect.ts';
import { SimulatedDevice, SimulatedIommu } from '../ts/testing.ts';
import type { DmaMapperHandle, GuestMemory } from '../ts/index.ts';
import { manyMappings, manyRegions } from './many-mappings.ts';
import { type Figure, median, time } from './measure.ts';

const OTHER_MAPPINGS = [10, 1_000, 100_000];
const BAR_LENGTH = 0x1_0000n;
/** The addresses of the BAR, in turn: above the other mappings. */
const BAR_ADDRESSES = [0x8000_0000, 0x9000_0000] as const;
const [COMMAND, BAR0] = [0x04, 0x10];
const MEMORY_DECODE = 2;

/** A device whose BAR the guest has mapped among the other mappings. */
interface Fixture {
  readonly memory: GuestMemory;
  readonly device: AssignedDevice;
  readonly iommu: DmaMapperHandle;
}

interface Operation {
  readonly name: string;
  readonly run: (fixture: Fixture) => unknown;
  /** Runs before the first round; the returned function runs after the last. */
  readonly prepare?: (fixture: Fixture) => () => void;
  /** Whether the operation reads every mapping, so that its cost grows with their number. */
  readonly linear?: true;
}

let moves = 0;

function moveBar({ device }: Fixture): Promise<void> {
  return device.configWrite(BAR0, 4, BAR_ADDRESSES[++moves % BAR_ADDRESSES.length] ?? 0);
}

const OPERATIONS: readonly Operation[] = [
  {
    name: 'memory decode off and on',
    run: async ({ device }) => {
      await device.configWrite(COMMAND, 2, 0);
      await device.configWrite(COMMAND, 2, MEMORY_DECODE);
    },
  },
  { name: 'explain() of one address', run: ({ memory }) => memory.explain(BigInt(BAR_ADDRESSES[0])) },
  { name: 'AssignedDevice.status()', run: ({ device }) => device.status() },
  { name: 'refresh() of device memory', run: ({ iommu }) => iommu.refresh() },
  { name: 'BAR move', run: moveBar },
  {
    name: 'BAR move, subscriber of peerdma:pci.bar',
    run: moveBar,
    prepare: () => {
      const ignore = (): void => {};
      subscribe('peerdma:pci.bar', ignore);
      return () => void unsubscribe('peerdma:pci.bar', ignore);
    },
  },
  {
    name: 'BAR move, journal',
    run: moveBar,
    prepare: ({ memory }) => {
      const journal = recordJournal(memory, '/dev/null');
      return () => journal.close();
    },
  },
  { name: 'inspect()', run: ({ memory }) => memory.inspect(), linear: true },
];

async function withMappings(count: number, act: (fixture: Fixture) => Promise<void>): Promise<void> {
  const { memory, file } = await manyMappings(count, 0n);
  const iommu = await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ rules: 'iommufd' }));
  const bars = [{ index: 0, length: BAR_LENGTH }];
  const device = await AssignedDevice.create({ device: new SimulatedDevice({ bdf: '0000:00:04.0', bars }), memory });
  await device.configWrite(BAR0, 4, BAR_ADDRESSES[0]);
  await device.configWrite(COMMAND, 2, MEMORY_DECODE);
  await act({ memory, device, iommu });
  await device.close();
  await memory.close();
  file.close();
}

/** Returns the median microseconds of 5 to 200 rounds, about a second in total. */
async function measure(run: () => unknown): Promise<number> {
  const [first = 0] = await time(1, run);
  const rounds = Math.max(5, Math.min(200, Math.floor(1e9 / first)));
  return median(await time(rounds, run)) / 1000;
}

/** Allocates and closes a DMA buffer while that many regions have addresses. */
async function bufferAmong(regions: number): Promise<number> {
  const memory = await manyRegions(regions);
  const micros = await measure(async () => (await DmaBuffer.allocate(memory, 4096n)).close());
  await memory.close();
  return micros;
}

export async function oneAmongMany(): Promise<Figure[]> {
  const micros = new Map<string, number[]>(OPERATIONS.map(({ name }) => [name, []]));
  for (const count of OTHER_MAPPINGS) {
    await withMappings(count, async (fixture) => {
      for (const { name, run, prepare } of OPERATIONS) {
        const done = prepare?.(fixture);
        micros.get(name)?.push(await measure(() => run(fixture)));
        done?.();
      }
    });
  }
  const buffers: number[] = [];
  for (const count of OTHER_MAPPINGS) buffers.push(await bufferAmong(count));
  return [
    ...OPERATIONS.map(({ name, linear }) => figure(name, micros.get(name) ?? [], linear)),
    figure('DmaBuffer.allocate() and close()', buffers),
  ];
}

function figure(name: string, micros: readonly number[], linear?: true): Figure {
  const [, thousand = NaN, last = NaN] = micros;
  const ratio = last / thousand;
  const goal = linear ? 200 : 4;
  return {
    name: `${name} among ${OTHER_MAPPINGS.join(' / ')} others`,
    measured: `${micros.map((each) => each.toFixed(1)).join(' / ')} µs: ${ratio.toFixed(1)}×`,
    goal: `≤ ${goal}× from the second to the last`,
    met: ratio <= goal,
  };
}
