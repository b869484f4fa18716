/**
 * Devices whose files another process has opened: by a launcher, and with each wrong descriptor.
 */
import { type SpawnSyncReturns, spawnSync } from 'node:child_process';
import { closeSync, fstatSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { basename, extname } from 'node:path';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../examples/devices/edu.ts';
import { type ErrorCode, GuestMemory, type HandedDevice, VfioContainerManager } from '../../ts/index.ts';
import { Sysfs } from '../../ts/vfio/sysfs.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { BACKEND } from './support/backend.ts';
import { testWith } from './support/devices.ts';
import { fetch, pattern, peerBar, RAM_LENGTH, RAM_START, send } from './support/rig.ts';

const GPA = 0x40_0000_0000n;

/** Opens the files of a test, as a launcher does, and closes them when it ends. */
class Launcher {
  readonly #open: number[] = [];

  constructor(t: ExecutionContext) {
    t.teardown(() => this.#open.forEach((fd) => closeSync(fd)));
  }

  open(path: string): number {
    const fd = openSync(path, 'r+');
    this.#open.push(fd);
    return fd;
  }

  /** The file of a device: its own, or that of its group. */
  device(bdf: string): Pick<HandedDevice, 'bdf' | 'iommuGroup' | 'cdev' | 'group'> {
    const iommuGroup = groupOf(bdf);
    return BACKEND === 'type1'
      ? { bdf, iommuGroup, group: this.open(`/dev/vfio/${iommuGroup}`) }
      : { bdf, iommuGroup, cdev: this.open(ownFile(bdf)) };
  }
}

function groupOf(bdf: string): number {
  return Number(basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`)));
}

function ownFile(bdf: string): string {
  return `/dev/vfio/devices/${readdirSync(`/sys/bus/pci/devices/${bdf}/vfio-dev`)[0]}`;
}

/** Guest memory, and a manager that finds no /sys. */
async function withoutSys(
  t: ExecutionContext,
  options: ConstructorParameters<typeof VfioContainerManager>[1] = {},
): Promise<{ memory: GuestMemory; vfio: VfioContainerManager }> {
  const memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: RAM_LENGTH }] });
  const vfio = new VfioContainerManager(memory, options, new Sysfs('/nonexistent'));
  t.teardown(async () => {
    await vfio.close();
    await memory.close();
  });
  return { memory, vfio };
}

/** Runs the launcher of the example, whose VMM may lock so many bytes. */
function launch(...args: string[]): SpawnSyncReturns<string> {
  const script = new URL(`../../examples/launcher/launcher${extname(import.meta.url)}`, import.meta.url).pathname;
  const command = [...process.execArgv, script, BACKEND, ...args];
  return spawnSync(process.execPath, command, { encoding: 'utf8', timeout: 150_000 });
}

testWith(
  { edu: 1, ivshmem: 1 },
  'a user nobody without /sys and /dev drives peer-to-peer DMA with the descriptors of a launcher',
  async (t, { edu: [edu = ''], ivshmem: [peer = ''] }) => {
    const { stdout, stderr, status } = launch(edu, peer);
    t.is(status, 0, `${stdout}\n${stderr}`);
    t.deepEqual(stdout.trim().split('\n'), [
      'user 65534, of /sys, /dev and /proc there is none',
      `${BACKEND}: ${edu} and ${peer} in 1 container`,
      'the BAR has "by DMA from device to device", and DMA reads "by DMA from device to device"',
    ]);
    // The launcher and its VMM have ended: nothing holds the devices.
    const { vfio } = await withoutSys(t, { backend: BACKEND });
    const launcher = new Launcher(t);
    await vfio.open(launcher.device(edu));
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a user nobody gets the limit of locked memory in the error',
  async (t, { edu: [edu = ''], ivshmem: [peer = ''] }) => {
    const { stderr, status } = launch(edu, peer, String(8 << 20));
    t.not(status, 0);
    t.regex(stderr, /ERR_MEMLOCK_LIMIT/);
    t.regex(stderr, /RLIMIT_MEMLOCK/);
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'drives peer-to-peer DMA with descriptors that the caller closes after the call, and leaves those of others open',
  async (t, { edu: [edu = ''], ivshmem: [peer = ''] }) => {
    const own = (bdf: string): { device: HandedDevice; close: () => void } => {
      const iommuGroup = groupOf(bdf);
      const fd = openSync(BACKEND === 'type1' ? `/dev/vfio/${iommuGroup}` : ownFile(bdf), 'r+');
      const device = { bdf, iommuGroup, ...(BACKEND === 'type1' ? { group: fd } : { cdev: fd }) };
      return { device, close: () => closeSync(fd) };
    };
    const launcher = new Launcher(t);
    const shared = launcher.open(BACKEND === 'type1' ? '/dev/vfio/vfio' : '/dev/iommu');
    const { memory, vfio } = await withoutSys(t, BACKEND === 'type1' ? {} : { iommufd: shared });
    const container = BACKEND === 'type1' ? { container: shared } : {};
    const first = own(edu);
    const opening = vfio.open({ ...first.device, ...container });
    first.close();
    const engine = new Edu(await opening);
    const second = own(peer);
    const hostAddresses = [undefined, undefined, 0xfe00_0000n];
    const target = await vfio.open({ ...second.device, ...container, hostAddresses });
    second.close();
    t.is(target.regions[2]?.hostAddress, 0xfe00_0000n);
    t.is(target.regions[0]?.hostAddress, undefined);
    const { containers } = vfio.inspect();
    t.is(containers.length, 1);
    t.deepEqual(
      containers[0]?.groups.map(({ id }) => id),
      [groupOf(edu), groupOf(peer)],
    );
    const bar = peerBar(target);
    const window = memory.newDeviceMemory({ name: 'peer', length: bar.length });
    const [area] = bar.mmapAreas;
    if (area === undefined) throw new Error('BAR 2 can be mapped');
    await window.addMapping({ range: area, backing: bar.backing(area.start) });
    await window.mapToGuest(GPA);
    const bytes = pattern(77, 256);
    await send(memory, engine, bytes, GPA);
    t.deepEqual(bar.read(0n, bytes.length), bytes);
    t.deepEqual(await fetch(memory, engine, GPA, bytes.length), bytes);
    await vfio.close();
    t.true(fstatSync(shared).isCharacterDevice(), 'the launcher still has its own');
  },
);

testWith({ any: 1 }, 'names the option for the group when /sys does not have it', async (t, { any: [bdf = ''] }) => {
  const { vfio } = await withoutSys(t);
  const launcher = new Launcher(t);
  const { iommuGroup, ...device } = launcher.device(bdf);
  const error = await rejectsCode(t, vfio.open(device), 'ERR_INVALID_ARGUMENT');
  t.regex(error.message, /"iommuGroup"/);
  t.is(error.bdf, bdf);
  await vfio.open({ ...device, iommuGroup });
});

testWith(
  { any: 1 },
  'takes the group and the host addresses of /sys if they are not passed',
  async (t, { any: [bdf = ''] }) => {
    const memory = await GuestMemory.create({});
    const vfio = new VfioContainerManager(memory);
    t.teardown(() => vfio.close());
    const launcher = new Launcher(t);
    const { iommuGroup, ...device } = launcher.device(bdf);
    const opened = await vfio.open(device);
    t.is(vfio.inspect().containers[0]?.groups[0]?.id, iommuGroup);
    t.true(opened.regions.some((region) => region?.hostAddress !== undefined));
    t.regex(vfio.inspect().reason, /file/);
  },
);

testWith({ any: 1 }, 'rejects descriptors of other files, and names the file', async (t, { any: [bdf = ''] }) => {
  const { memory, vfio } = await withoutSys(t);
  const ofGroup = `/dev/vfio/${groupOf(bdf)}`;
  const kind = BACKEND === 'type1' ? 'group' : 'cdev';
  for (const path of ['/dev/null', '/dev/vfio/vfio', kind === 'group' ? '/dev/zero' : ofGroup]) {
    const fd = openSync(path, 'r+');
    const given = { bdf, iommuGroup: groupOf(bdf), [kind]: fd };
    const error = await rejectsCode(t, vfio.open(given), 'ERR_INVALID_ARGUMENT', path);
    t.true(error.message.includes(`"${kind}" of ${bdf}`) && error.message.includes(path), error.message);
    if (path !== '/dev/vfio/vfio') {
      const refused = throwsCode(t, () => new VfioContainerManager(memory, { iommufd: fd }), 'ERR_INVALID_ARGUMENT');
      t.true(refused.message.includes(path), refused.message);
    }
    closeSync(fd);
  }
  const launcher = new Launcher(t);
  const device = launcher.device(bdf);
  if (kind === 'group') {
    const opening = vfio.open({ ...device, container: launcher.open('/dev/null') });
    const error = await rejectsCode(t, opening, 'ERR_INVALID_ARGUMENT');
    t.true(error.message.includes(`"container" of ${bdf}`), error.message);
  }
  await vfio.open(device);
});

testWith({ any: 1 }, 'rejects incomplete devices, and files for the other back end', async (t, { any: [bdf = ''] }) => {
  const { memory, vfio } = await withoutSys(t);
  const launcher = new Launcher(t);
  const kind = BACKEND === 'type1' ? 'group' : 'cdev';
  const other = BACKEND === 'type1' ? 'cdev' : 'group';
  const wrong: readonly [Partial<HandedDevice>, RegExp][] = [
    [{}, /"cdev" or "group"/],
    [{ cdev: 0, group: 0 }, /"cdev" or "group"/],
    [{ cdev: 0, container: 0 }, /"group"/],
    [{ [kind]: 2 ** 31 - 1 }, /F_DUPFD/],
    [{ [kind]: 0, bdf: 'the edu' }, /PCI address/],
    [{ [kind]: 0, hostAddresses: Array.from({ length: 8 }, () => 0n) }, /hostAddresses/],
  ];
  for (const [change, text] of wrong) {
    const error = await rejectsCode(t, vfio.open({ bdf, iommuGroup: 1, ...change }), 'ERR_INVALID_ARGUMENT');
    t.regex(error.message, text);
  }
  await vfio.open(launcher.device(bdf));
  const mixed = vfio.open({ bdf: '0000:ff:00.0', iommuGroup: 1, [other]: 0 });
  const { message } = await rejectsCode(t, mixed, 'ERR_INVALID_ARGUMENT');
  t.true(message.includes(`"${kind}"`), message);
  const both = { backend: 'type1', iommufd: 0 } as const;
  throwsCode(t, () => new VfioContainerManager(memory, both), 'ERR_INVALID_ARGUMENT');
});

testWith({ any: 1 }, 'rejects a device that is open already, in each way', async (t, { any: [bdf = ''] }) => {
  const { vfio } = await withoutSys(t);
  const launcher = new Launcher(t);
  const device = launcher.device(bdf);
  await vfio.open(device);
  await rejectsCode(t, vfio.open(device), 'ERR_DEVICE_IN_USE');
  const other = await withoutSys(t);
  const error = await rejectsCode(t, other.vfio.open(device), 'ERR_DEVICE_IN_USE');
  t.regex(error.message, BACKEND === 'type1' ? /attached to a container already/ : /bound already/);
  const byPath = new VfioContainerManager(other.memory, { backend: BACKEND });
  const busy: ErrorCode = 'ERR_GROUP_BUSY';
  await rejectsCode(t, byPath.open(bdf), busy);
  await vfio.close();
  if (BACKEND === 'type1') await other.vfio.open(device);
  else await rejectsCode(t, other.vfio.open(device), 'ERR_DEVICE_IN_USE');
});

if (BACKEND === 'type1') {
  testWith(
    { any: 2 },
    'rejects a container with an IOMMU, and joins the container of an earlier device instead',
    async (t, { any: [one = '', two = ''] }) => {
      const launcher = new Launcher(t);
      const container = launcher.open('/dev/vfio/vfio');
      const first = await withoutSys(t);
      await first.vfio.open({ ...launcher.device(one), container });
      const second = await withoutSys(t);
      const device = launcher.device(two);
      const error = await rejectsCode(t, second.vfio.open({ ...device, container }), 'ERR_DEVICE_IN_USE');
      t.regex(error.message, /has an IOMMU already/);
      await first.vfio.open({ ...device, container });
      t.is(first.vfio.inspect().containers.length, 1);
    },
  );
} else {
  testWith(
    { any: 2 },
    'leaves the address spaces of others in an iommufd alone',
    async (t, { any: [one = '', two = ''] }) => {
      const launcher = new Launcher(t);
      const iommufd = launcher.open('/dev/iommu');
      const first = await withoutSys(t, { iommufd });
      const second = await withoutSys(t, { iommufd });
      await first.vfio.open(launcher.device(one));
      await second.vfio.open(launcher.device(two));
      const mappings = first.vfio.inspect().containers[0]?.mappings;
      t.true((mappings ?? 0) > 0);
      await second.vfio.close();
      const window = first.memory.newDeviceMemory({ name: 'new', length: 1n << 21n });
      await window.addMapping({ backing: 'private' });
      await window.mapToGuest(GPA);
      t.true((first.vfio.inspect().containers[0]?.mappings ?? 0) > (mappings ?? 0));
      await first.vfio.close();
      t.true(fstatSync(iommufd).isCharacterDevice());
    },
  );
}
