// A disk of QEMU's storage daemon: its reads arrive in guest memory, and it follows changes of guest memory.
import type { ExecutionContext } from 'ava';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { DRIVER_FEATURES, VirtioBlk } from '../../examples/devices/virtio-blk.ts';
import { AddressRange, GuestMemory, MemoryFile } from '../../ts/index.ts';
import { type VhostUserOptions, VhostUserTarget } from '../../ts/vhost-user.ts';
import { rejectsCode } from '../support/errors.ts';
import { until } from '../support/until.ts';
import { StorageDaemon, daemonTest, diskContents } from './support/storage-daemon.ts';

const SECTORS = 256;
const MIB = 1n << 20n;
const CONTENTS = diskContents(SECTORS);
/** RAM of its own, and RAM that the tests cut. */
const SMALL = { start: 0n, length: MIB };
const LARGE = { start: 2n * MIB, length: 14n * MIB };
const BUFFER = LARGE.start;
const HOT = AddressRange.of(1n << 32n, 4n * MIB);

interface Scene {
  readonly daemon: StorageDaemon;
  readonly memory: GuestMemory;
  readonly disk: VhostUserTarget;
  readonly driver: VirtioBlk;
}

async function connected(
  t: ExecutionContext,
  options: VhostUserOptions = {},
  { ring = SMALL.start, requestsPerSecond }: { ring?: bigint; requestsPerSecond?: number } = {},
): Promise<Scene> {
  const daemon = await StorageDaemon.start(t, CONTENTS, requestsPerSecond);
  const memory = await GuestMemory.create({ ram: [SMALL, LARGE] });
  const disk = await VhostUserTarget.connect(daemon.path, { features: DRIVER_FEATURES, ...options });
  const joined = await memory.dmaMappers.addDmaMapper(disk);
  const driver = await VirtioBlk.start(disk, memory, ring);
  t.teardown(async () => {
    await daemon.kill();
    await disk.close();
    await joined.remove().catch(() => memory.dmaMappers.targetClosed(disk));
    await memory.close();
  });
  return { daemon, memory, disk, driver };
}

/** Reads sectors by DMA of the disk to an address, and compares them. */
async function readsTo(t: ExecutionContext, { memory, driver }: Scene, to: bigint, sector: number): Promise<void> {
  memory.write(to, new Uint8Array(1024));
  t.is(await driver.read(BigInt(sector), to, 2), 0);
  t.deepEqual(memory.read(to, 1024), CONTENTS.slice(sector * 512, (sector + 2) * 512));
}

async function addHotRam(memory: GuestMemory): Promise<{ remove(): Promise<void> }> {
  const file = MemoryFile.create(HOT.length, { name: 'hot' });
  const region = await memory.regions.addRegion({ name: 'hot', range: HOT });
  await region.addMapping({ backing: { file, offset: 0n } });
  file.close();
  await region.mapToGuest();
  return region;
}

const WAYS: readonly (readonly [string, VhostUserOptions])[] = [
  ['with ADD_MEM_REG', {}],
  ['with SET_MEM_TABLE', { withoutProtocolFeatures: ['CONFIGURE_MEM_SLOTS'] }],
  ['with SET_MEM_TABLE and no confirmations', { withoutProtocolFeatures: ['REPLY_ACK'] }],
];

for (const [way, options] of WAYS) {
  daemonTest(`reads and writes the memory of the guest ${way}`, async (t) => {
    const scene = await connected(t, options);
    const { daemon, memory, disk, driver } = scene;
    const capacity = await disk.readConfig(0, 8);
    t.is(new DataView(capacity.buffer).getBigUint64(0, true), BigInt(SECTORS));
    await readsTo(t, scene, BUFFER, 3);
    memory.write(BUFFER, new Uint8Array(512).fill(0xab));
    t.is(await driver.write(7n, BUFFER, 1), 0);
    t.is(await driver.flush(), 0);
    t.deepEqual(daemon.sectors(7, 1), Buffer.alloc(512, 0xab));
  });

  daemonTest(`follows memory that is added and removed while the queue runs ${way}`, async (t) => {
    const scene = await connected(t, options);
    const { memory, disk, driver } = scene;
    for (let round = 0; round < 3; round++) {
      const region = await addHotRam(memory);
      await readsTo(t, scene, HOT.start + 4096n, 5);
      await region.remove();
      await readsTo(t, scene, BUFFER, 9);
    }
    // The daemon ends the connection when a request names memory that it does not have.
    void driver.read(1n, HOT.start + 4096n, 1);
    await until(() => disk.state === 'disconnected', 'the daemon has ended the connection');
    t.is(disk.failure?.code, 'ERR_DISCONNECTED');
  });

  daemonTest(`reads to RAM that another region cuts, and that is whole again, ${way}`, async (t) => {
    await readsAroundCut(t, await connected(t, options));
  });
}

async function readsAroundCut(t: ExecutionContext, scene: Scene): Promise<void> {
  const { memory, disk } = scene;
  const range = AddressRange.of(8n * MIB, MIB);
  using file = MemoryFile.create(MIB);
  const overlay = await memory.regions.addRegion({ name: 'overlay', range, priority: 1000 });
  await overlay.addMapping({ backing: { file, offset: 0n } });
  for (let round = 0; round < 3; round++) {
    await overlay.mapToGuest();
    t.is(memory.inspect().targets[0]?.mappings.length, 4);
    await readsTo(t, scene, BUFFER, 11);
    await readsTo(t, scene, range.start + 4096n, 12);
    await overlay.unmapFromGuest();
    await readsTo(t, scene, range.start + 4096n, 13);
  }
  t.is(disk.state, 'connected');
}

daemonTest('continues a queue whose own memory is cut, and is whole again', async (t) => {
  await readsAroundCut(t, await connected(t, {}, { ring: LARGE.start + LARGE.length - MIB }));
});

daemonTest('connects again if the daemon does not accept a table without the memory of its queue', async (t) => {
  const options = { withoutProtocolFeatures: ['CONFIGURE_MEM_SLOTS'], reconnect: 10 } as const;
  const scene = await connected(t, options, { ring: LARGE.start + LARGE.length - MIB });
  const { disk, memory } = scene;
  const states: string[] = [];
  disk.onStateChange((state) => states.push(state));
  const region = await memory.regions.addRegion({ name: 'r', range: AddressRange.of(8n * MIB, MIB), priority: 1000 });
  await region.addMapping({ backing: { file: MemoryFile.create(MIB), offset: 0n } });
  await region.mapToGuest();
  await readsTo(t, scene, BUFFER, 11);
  await until(() => disk.state === 'connected', 'the state follows the set-up');
  t.deepEqual(states, ['disconnected', 'connected']);
});

daemonTest('serves the queue again after the daemon was killed and started again', async (t) => {
  const scene = await connected(t, { reconnect: 20 });
  const { daemon, memory, disk, driver } = scene;
  await readsTo(t, scene, BUFFER, 20);
  for (let round = 0; round < 3; round++) {
    await daemon.kill();
    await until(() => disk.state === 'disconnected', 'the end of the daemon is known');
    // Memory and requests that the next daemon gets.
    const region = await addHotRam(memory);
    const requests = [driver.read(30n, HOT.start, 2), driver.read(40n, BUFFER, 2)];
    await daemon.startAgain();
    t.deepEqual(await Promise.all(requests), [0, 0]);
    t.deepEqual(memory.read(HOT.start, 1024), CONTENTS.slice(30 * 512, 32 * 512));
    t.deepEqual(memory.read(BUFFER, 1024), CONTENTS.slice(40 * 512, 42 * 512));
    await region.remove();
    await readsTo(t, scene, BUFFER, 50);
  }
});

// The daemon does not offer a record of started requests (INFLIGHT_SHMFD): it begins at the first one that is not used.
daemonTest('completes requests that were in flight when the daemon was killed', async (t) => {
  const { daemon, memory, driver } = await connected(t, { reconnect: 20 }, { requestsPerSecond: 20 });
  const addressOf = (index: number): bigint => BUFFER + BigInt(index) * 4096n;
  for (let round = 0; round < 2; round++) {
    memory.write(BUFFER, new Uint8Array(16 * 4096));
    let completed = 0;
    const requests = Array.from({ length: 16 }, async (_, index) => {
      const status = await driver.read(BigInt(index * 2), addressOf(index), 2);
      completed++;
      return status;
    });
    await until(() => completed > 2, 'the daemon has completed some requests');
    await daemon.kill();
    t.true(completed < 16, 'and others are in flight');
    await daemon.startAgain();
    t.deepEqual(
      await Promise.all(requests),
      requests.map(() => 0),
    );
    for (let index = 0; index < 16; index++) {
      t.deepEqual(memory.read(addressOf(index), 1024), CONTENTS.slice(index * 1024, (index + 1) * 1024));
    }
  }
});

daemonTest('quarantines memory while the daemon hangs, and releases it after its end', async (t) => {
  const { daemon, memory, disk } = await connected(t, { timeout: 200 });
  const region = await addHotRam(memory);
  daemon.suspend();
  await rejectsCode(t, region.remove(), 'ERR_UNMAP_FAILED');
  t.is(disk.state, 'failed');
  t.is(disk.failure?.code, 'ERR_TIMEOUT');
  t.like(memory.inspect().quarantine, [{ target: disk.name }]);
  await rejectsCode(t, disk.close(), 'ERR_TIMEOUT');
  await daemon.kill();
  await disk.close();
  await memory.dmaMappers.targetClosed(disk);
  t.deepEqual(memory.inspect().quarantine, []);
  await region.remove();
});

daemonTest('the example reads and writes a disk, also in RAM that is added later', async (t) => {
  const text = new TextEncoder().encode('the first page');
  const daemon = await StorageDaemon.start(
    t,
    Uint8Array.from({ length: 4096 }, (_, at) => text[at] ?? 0),
  );
  const args = ['--import=./scripts/typescript/register.mjs', 'examples/vhost-user-blk.ts', daemon.path];
  const { stdout, stderr } = await promisify(execFile)(process.execPath, args);
  t.is(stderr, '');
  t.deepEqual(stdout.trimEnd().split('\n'), [
    'the disk has 8 sectors',
    'it maps 0x0..0x4000000',
    'sector 0 begins with "the first page"',
    'it maps 0x0..0x4000000, 0x100000000..0x101000000',
    'sector 1 begins with "from the guest"',
  ]);
});
