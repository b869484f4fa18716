/**
 * Pluggable RAM under real DMA.
 *
 * Pinned pages by the kernel's count, blocks that DMA does not reach, and more blocks than a container has mappings.
 */
import type { ExecutionContext } from 'ava';
import { AddressRange, GuestMemory, MemoryFile, PeerDmaError, type PluggableRamOptions } from '../../ts/index.ts';
import { Edu } from '../../examples/devices/edu.ts';
import { BACKEND, newManager } from './support/backend.ts';
import { testWith } from './support/devices.ts';
import { setEntryLimit } from './support/entry-limit.ts';
import { pinnedAtRest } from './support/pins.ts';
import { RAM_LENGTH, RAM_START, SOURCE, pattern } from './support/rig.ts';
import { reaches } from './support/two-containers.ts';

const PAGE = 4096n;
const MiB = 1n << 20n;
const START = 4n << 30n;

/** Guest memory with an edu, and pluggable RAM of a file. */
async function rig(t: ExecutionContext, bdf: string, options: Pick<PluggableRamOptions, 'length' | 'blockSize'>) {
  const memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: RAM_LENGTH }] });
  const manager = newManager(memory);
  const file = MemoryFile.create(options.length, { name: 'pluggable' });
  t.teardown(async () => {
    await manager.close();
    await memory.close();
    file.close();
  });
  const edu = new Edu(await manager.open(bdf));
  const add = (more: Partial<PluggableRamOptions> = {}) =>
    memory.addPluggableRam({ start: START, file, ...options, ...more });
  return { memory, edu, file, add };
}

testWith(
  { edu: 1 },
  'plugged blocks are pinned and reached by DMA; unplugged ones are unpinned, not reached, and zero afterwards',
  async (t, { edu: [bdf = ''] }) => {
    const BLOCK = 2n * MiB;
    const { memory, edu, file, add } = await rig(t, bdf, { length: 8n * BLOCK, blockSize: BLOCK });
    const block = (index: number): AddressRange => AddressRange.of(START + BigInt(index) * BLOCK, BLOCK);
    const reachesBlock = (index: number) => reaches(memory, edu, block(index).start, file, BigInt(index) * BLOCK);
    const ram = await add();
    const before = await pinnedAtRest();
    t.false(await reachesBlock(1));

    await ram.plug([1, 2, 3, 5].map(block));
    t.is((await pinnedAtRest()) - before, 4 * 512);
    for (const index of [1, 2, 3, 5]) t.true(await reachesBlock(index), `block ${index}`);
    for (const index of [0, 4, 6]) t.false(await reachesBlock(index), `block ${index}`);

    await ram.unplug([block(2)]);
    t.is((await pinnedAtRest()) - before, 3 * 512);
    t.false(await reachesBlock(2));
    for (const index of [1, 3]) t.true(await reachesBlock(index), `neighbour ${index}`);

    await ram.plug([block(2)]);
    t.is((await pinnedAtRest()) - before, 4 * 512);
    t.deepEqual(memory.read(block(2).start, 4096), new Uint8Array(4096));
    await edu.copy(block(2).start, SOURCE, Edu.BUFFER_SIZE);
    t.deepEqual(memory.read(SOURCE, Edu.BUFFER_SIZE), new Uint8Array(Edu.BUFFER_SIZE), 'for DMA, too');
    t.true(await reachesBlock(2));

    await ram.remove();
    t.is(await pinnedAtRest(), before);
    t.false(await reachesBlock(1));
  },
);

testWith(
  { edu: 1 },
  'DMA to a block arrives while its neighbours are plugged and unplugged',
  async (t, { edu: [bdf = ''] }) => {
    const BLOCK = 2n * MiB;
    const { memory, edu, add } = await rig(t, bdf, { length: 3n * BLOCK, blockSize: BLOCK });
    const block = (index: number): AddressRange => AddressRange.of(START + BigInt(index) * BLOCK, BLOCK);
    const ram = await add({ plugged: [block(1)] });
    let [done, copies, rounds] = [false, 0, 0];
    const neighbours = (async () => {
      for (; copies < 20 || rounds < 5; rounds++) {
        await ram.plug([block(0), block(2)]);
        await ram.unplug([block(0), block(2)]);
      }
      done = true;
    })();
    while (!done) {
      const bytes = pattern(copies++);
      memory.write(SOURCE, bytes);
      await edu.copy(SOURCE, block(1).start, bytes.length);
      if (Buffer.compare(memory.read(block(1).start, bytes.length), bytes) !== 0)
        t.fail(`copy ${copies} did not arrive`);
    }
    await neighbours;
    t.true(copies >= 20 && rounds >= 5, `${copies} copies during ${rounds} rounds`);
  },
);

testWith({ edu: 1 }, 'RAM is added, receives DMA and is removed', async (t, { edu: [bdf = ''] }) => {
  const { memory, edu } = await rig(t, bdf, { length: PAGE, blockSize: PAGE });
  const before = await pinnedAtRest();
  for (const kind of [{}, { private: true }, { hugePages: 'transparent', prefault: true }] as const) {
    const ram = await memory.addRam({ start: START, length: 4n * MiB, ...kind });
    t.is((await pinnedAtRest()) - before, 1024);
    const bytes = pattern(1);
    memory.write(SOURCE, bytes);
    await edu.copy(SOURCE, START + 2n * MiB, bytes.length);
    t.deepEqual(memory.read(START + 2n * MiB, bytes.length), bytes);
    await ram.remove();
    t.is(await pinnedAtRest(), before);
  }
});

if (BACKEND === 'type1')
  testWith(
    { edu: 1 },
    '30,000 blocks are plugged in a container of 10,000 mappings, since neighbours share a mapping',
    async (t, { edu: [bdf = ''] }) => {
      setEntryLimit(t, 10_000);
      const blocks = 30_000;
      const length = BigInt(blocks) * PAGE;
      const { memory, edu, file, add } = await rig(t, bdf, { length, blockSize: PAGE });
      const all = AddressRange.of(START, length);
      const before = await pinnedAtRest();
      const single = await add({ mappingSize: PAGE });
      const error = await t.throwsAsync(single.plug([all]), { instanceOf: PeerDmaError, code: 'ERR_MAPPING_LIMIT' });
      t.is(error?.errno, 'ENOSPC');
      t.deepEqual([single.plugged(), await pinnedAtRest()], [[], before], 'nothing is plugged');
      await single.remove();

      const ram = await add();
      await ram.plug([all]);
      t.is((await pinnedAtRest()) - before, blocks);
      t.true(await reaches(memory, edu, START + length - PAGE, file, length - PAGE));
      const odd = 12_345n * PAGE;
      await ram.unplug([AddressRange.of(START + odd, PAGE)]);
      t.is((await pinnedAtRest()) - before, blocks - 1);
      t.false(await reaches(memory, edu, START + odd, file, odd));
      for (const at of [odd - PAGE, odd + PAGE]) t.true(await reaches(memory, edu, START + at, file, at));
    },
  );
