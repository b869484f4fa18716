/**
 * RAM of huge pages under real DMA. The testbed reserves some; elsewhere the test needs four free ones.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { GuestMemory } from '../../ts/index.ts';
import { Edu } from '../../examples/devices/edu.ts';
import { testWith } from './support/devices.ts';
import { pattern } from './support/rig.ts';
import { newManager } from './support/backend.ts';

const MiB = 1n << 20n;
const POOL = '/proc/sys/vm/nr_hugepages';

function free(): number {
  return Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
}

testWith(
  { edu: 1 },
  'RAM of huge pages is allocated from the pool, receives DMA, and is freed',
  async (t, { edu: [bdf = ''] }) => {
    const before = readFileSync(POOL, 'utf8');
    if (process.env['PEERDMA_TESTBED_KERNEL'] !== undefined) {
      writeFileSync(POOL, '8');
      t.teardown(() => writeFileSync(POOL, before));
    }
    const pool = free();
    t.true(pool >= 4, 'sysctl vm.nr_hugepages=4 reserves enough');
    const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 8n * MiB, hugePages: '2M' }] });
    const vfio = newManager(memory);
    try {
      const edu = new Edu(await vfio.open(bdf));
      memory.write(0x10_0000n, pattern(40));
      await edu.copy(0x10_0000n, 7n * MiB, pattern(40).length);
      t.deepEqual(memory.read(7n * MiB, pattern(40).length), pattern(40));
      t.is(free(), pool - 4, 'all of it is pinned');
    } finally {
      await vfio.close();
      await memory.close();
    }
    t.is(free(), pool);
  },
);
