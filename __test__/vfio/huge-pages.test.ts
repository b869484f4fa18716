/**
 * RAM of huge pages under real DMA. The testbed reserves some; elsewhere the test needs four free ones.
 */
import { AddressRange, GuestMemory } from '../../ts/index.ts';
import { Edu } from '../../examples/devices/edu.ts';
import { testWith } from './support/devices.ts';
import { freeHugePages, reserveHugePages } from './support/huge-pages.ts';
import { pattern } from './support/rig.ts';
import { newManager } from './support/backend.ts';

const MiB = 1n << 20n;

testWith(
  { edu: 1 },
  'RAM of huge pages is allocated from the pool, receives DMA, and is freed',
  async (t, { edu: [bdf = ''] }) => {
    const pool = reserveHugePages(t, 8);
    t.true(pool >= 4, 'sysctl vm.nr_hugepages=4 reserves enough');
    const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 8n * MiB, hugePages: '2M' }] });
    const vfio = newManager(memory);
    try {
      const edu = new Edu(await vfio.open(bdf));
      memory.write(0x10_0000n, pattern(40));
      await edu.copy(0x10_0000n, 7n * MiB, pattern(40).length);
      t.deepEqual(memory.read(7n * MiB, pattern(40).length), pattern(40));
      t.is(freeHugePages(), pool - 4, 'all of it is pinned');
    } finally {
      await vfio.close();
      await memory.close();
    }
    t.is(freeHugePages(), pool);
  },
);

testWith(
  { edu: 1 },
  'blocks of huge pages take pages of the pool when they are plugged, and return them when they are unplugged',
  async (t, { edu: [bdf = ''] }) => {
    const pool = reserveHugePages(t, 8);
    const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 4n * MiB }] });
    const vfio = newManager(memory);
    try {
      const edu = new Edu(await vfio.open(bdf));
      const start = 1n << 32n;
      const ram = await memory.addPluggableRam({ start, length: 8n * MiB, blockSize: 2n * MiB, hugePages: '2M' });
      const [first, second] = [AddressRange.of(start, 2n * MiB), AddressRange.of(start + 2n * MiB, 2n * MiB)];
      await ram.plug([first, second]);
      t.is(freeHugePages(), pool - 2);
      memory.write(0n, pattern(41));
      await edu.copy(0n, first.start, pattern(41).length);
      t.deepEqual(memory.read(first.start, pattern(41).length), pattern(41));
      await ram.unplug([first]);
      t.is(freeHugePages(), pool - 1);
      await ram.plug([first]);
      t.is(memory.read8(first.start), 0);
    } finally {
      await vfio.close();
      await memory.close();
    }
    t.is(freeHugePages(), pool);
  },
);
