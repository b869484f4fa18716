/**
 * RAM of huge pages under real DMA. The testbed reserves some; elsewhere the test needs four free ones.
 */
import { GuestMemory } from '../../ts/index.ts';
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
