/**
 * Plugs and unplugs 1,000 blocks of RAM. The calls of the native core for a target are counted, and map nothing.
 */
import { AddressRange, GuestMemory } from '../ts/index.ts';
import { KernelTarget, type NativeSpace } from '../ts/dma/kernel-target.ts';
import { type Figure, median, time } from './measure.ts';
import { joinWithPort } from './targets.ts';

const BLOCKS = 1_000;
const BLOCK = 2n << 20n;
const RANGE: AddressRange = AddressRange.of(4n << 30n, BigInt(BLOCKS) * BLOCK);
const ROUNDS = 20;

/** An address space of the kernel without its ioctls. */
class CountedTarget extends KernelTarget {
  readonly needsVa = true;
  protected readonly dirtyPageSize = 4096n;

  /** @param count is called for each call of the native core */
  constructor(count: () => void) {
    const space: NativeSpace = {
      map: () => (count(), null),
      mapAsync: async () => (count(), null),
      unmap: () => (count(), []),
      unmapAsync: async () => (count(), []),
      setDirtyTracking: async () => {},
      dirtyPages: async () => new BigUint64Array(),
    };
    super(space, 'counted', () => ({ pageSize: 4096n, iovaRanges: [AddressRange.of(0n, 1n << 48n)] }));
  }
}

export async function plugBlocks(): Promise<Figure[]> {
  let calls = 0;
  const memory = await GuestMemory.create();
  await joinWithPort(new CountedTarget(() => calls++))(memory);
  const ram = await memory.addPluggableRam({ start: RANGE.start, length: RANGE.length, blockSize: BLOCK });
  const unplugs: number[] = [];
  const plugs = await time(
    ROUNDS,
    () => ram.plug([RANGE]),
    async () => unplugs.push(...(await time(1, () => ram.unplug([RANGE])))),
  );
  await memory.close();
  return [
    figure('plugged', calls / ROUNDS / 2, plugs),
    { ...figure('unplugged', calls / ROUNDS / 2, unplugs), goal: 'the same' },
  ];
}

function figure(what: string, calls: number, taken: readonly number[]): Figure {
  return {
    name: `1,000 blocks of 2 MiB ${what}: calls of the native core for each target`,
    measured: `${calls}, in ${(median(taken) / 1e6).toFixed(1)} ms without the ioctls`,
    goal: '1',
    met: calls === 1,
  };
}
