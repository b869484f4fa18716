/**
 * The errors of opening a device, each caused on a real kernel. Tests that need other permissions use a process of
 * their own.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename, extname } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { GuestMemory, PeerDmaError } from '../../ts/index.ts';
import type { Attempt } from './support/attempt.ts';
import { testWith } from './support/devices.ts';
import { rig } from './support/rig.ts';
import { BACKEND, newManager } from './support/backend.ts';

interface Outcome {
  readonly code: string;
  readonly errno?: string;
  readonly message?: string;
  readonly device?: string;
  readonly range?: string;
  readonly containers: number;
  readonly targets: number;
  readonly files: string[];
}

/** Opens a device with 4 MiB of RAM in a child process that `wrapper` starts. */
function tryOpen(t: ExecutionContext, bdf: string, ...wrapper: string[]): Outcome {
  const [outcome] = tryEach(t, bdf, [{ mebibytes: 4 }], ...wrapper);
  if (outcome === undefined) throw new Error('no result');
  return outcome;
}

/** Opens a device several times in a child process that `wrapper` starts, which reports the results. */
function tryEach(t: ExecutionContext, bdf: string, attempts: readonly Attempt[], ...wrapper: string[]): Outcome[] {
  const script = new URL(`programs/try-open${extname(import.meta.url)}`, import.meta.url).pathname;
  const command = [...wrapper, process.execPath, ...process.execArgv, script, bdf, JSON.stringify(attempts)];
  const [program = '', ...args] = command;
  const { stdout, stderr, status } = spawnSync(program, args, { encoding: 'utf8', timeout: 60_000 });
  t.is(status, 0, stderr);
  return JSON.parse(stdout) as Outcome[];
}

function groupOf(bdf: string): string {
  return basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`));
}

/** The files that opening a device opens. */
function openedFor(bdf: string): string[] {
  if (BACKEND === 'type1') return [`/dev/vfio/${groupOf(bdf)}`, '/dev/vfio/vfio'];
  const [name = ''] = readdirSync(`/sys/bus/pci/devices/${bdf}/vfio-dev`);
  return ['/dev/iommu', `/dev/vfio/devices/${name}`];
}

function without(capability: string): string[] {
  return ['setpriv', `--bounding-set=-${capability}`, `--inh-caps=-${capability}`];
}

testWith({ any: 1 }, 'a child process can open a device', async (t, { any: [bdf = ''] }) => {
  t.like(tryOpen(t, bdf), { code: 'OK', containers: 1, targets: 1 });
});

testWith(
  { any: 1 },
  'RAM beyond the limit of locked memory fails with an error that names the limit, and leaves nothing',
  async (t, { any: [bdf = ''] }) => {
    const limited = [...without('ipc_lock'), 'prlimit', `--memlock=${8 << 20}`];
    const [below, outcome] = tryEach(t, bdf, [{ mebibytes: 4 }, { mebibytes: 16 }], ...limited);
    t.like(below, { code: 'OK' }, 'below the limit it works');
    t.like(outcome, { code: 'ERR_MEMLOCK_LIMIT', errno: 'ENOMEM', range: '0x0..0x1000000', containers: 0, targets: 0 });
    t.regex(outcome?.message ?? '', /RLIMIT_MEMLOCK/);
  },
);

const HIDDEN = ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs none /dev/vfio && exec "$@"', 'sh'];

if (BACKEND === 'type1') {
  testWith({ any: 1 }, 'without /dev/vfio/vfio the error names the remedy', async (t, { any: [bdf = ''] }) => {
    const outcome = tryOpen(t, bdf, ...HIDDEN);
    t.like(outcome, { code: 'ERR_GROUP_OPEN', errno: 'ENOENT', bdf });
    t.regex(outcome.message ?? '', /modprobe vfio-pci/);

    const group = groupOf(bdf);
    const onlyGroup = `mkdir /run/peerdma-vfio && mount --bind /dev/vfio /run/peerdma-vfio && mount -t tmpfs none /dev/vfio && ln -s /run/peerdma-vfio/${group} /dev/vfio/${group} && exec "$@"`;
    const half = tryOpen(t, bdf, 'unshare', '--mount', 'sh', '-c', onlyGroup, 'sh');
    t.like(half, { code: 'ERR_VFIO_UNAVAILABLE', errno: 'ENOENT', containers: 0, targets: 0, files: [] });
    t.regex(half.message ?? '', /modprobe vfio-pci/);
  });
} else {
  testWith({ any: 1 }, 'without the file of the device the error names the remedy', async (t, { any: [bdf = ''] }) => {
    const outcome = tryOpen(t, bdf, ...HIDDEN);
    t.like(outcome, { code: 'ERR_DEVICE_OPEN', errno: 'ENOENT', bdf, containers: 0, targets: 0, files: [] });
    t.regex(outcome.message ?? '', /\/dev\/vfio\/devices\/vfio\d+ .*container/);
  });
}

testWith({ any: 1 }, 'without permission the error names the file', async (t, { any: [bdf = ''] }) => {
  const paths = openedFor(bdf);
  const attempts = paths.map((path) => ({ mebibytes: 4, files: [path] }));
  const outcomes = tryEach(t, bdf, attempts, ...without('dac_override,-dac_read_search'));
  t.is(outcomes.length, paths.length);
  for (const [index, path] of paths.entries()) {
    const outcome = outcomes[index];
    t.like(outcome, { code: 'ERR_PERMISSION', errno: 'EACCES', containers: 0, targets: 0, files: [] });
    t.true(outcome?.message?.includes(path), outcome?.message);
  }
});

testWith({ any: 1 }, 'a group that another process has open is busy', async (t, { any: [bdf = ''] }) => {
  const { memory, open } = await rig(t);
  await open(bdf);
  const other = newManager(memory);
  t.teardown(() => other.close());
  const error = await t.throwsAsync(other.open(bdf), { instanceOf: PeerDmaError, code: 'ERR_GROUP_BUSY' });
  t.is(error?.bdf, bdf);
  t.is(error?.errno, BACKEND === 'type1' ? 'EBUSY' : 'EINVAL');
  t.is(memory.inspect().targets.length, 1);
});

testWith(
  { any: 1 },
  'rejects a device that does not exist, an invalid address, and a device with another driver',
  async (t) => {
    const { open } = await rig(t);
    await t.throwsAsync(open('ffff:ff:1f.7'), { instanceOf: PeerDmaError, code: 'ERR_DEVICE_NOT_FOUND' });
    for (const bdf of ['', 'edu', '../0000:00:04.0/..', '0000:00:04.9']) {
      await t.throwsAsync(open(bdf), { instanceOf: PeerDmaError, code: 'ERR_INVALID_ARGUMENT' });
    }
    const foreign = readdirSync('/sys/bus/pci/devices').find((bdf) => {
      try {
        return !/vfio/.test(readlinkSync(`/sys/bus/pci/devices/${bdf}/driver`));
      } catch {
        return false;
      }
    });
    if (foreign === undefined) return t.log('no device here has a driver of the host');
    const error = await t.throwsAsync(open(foreign), { instanceOf: PeerDmaError, code: 'ERR_DEVICE_NOT_BOUND' });
    t.regex(error?.message ?? '', /in use by the driver \S+: bind it to vfio-pci/);
  },
);

testWith(
  { any: 1 },
  'RAM that the IOMMU cannot map fails with the possible ranges, and leaves nothing',
  async (t, { any: [bdf = ''] }) => {
    const memory = await GuestMemory.create({ ram: [{ start: 0xfee0_0000n, length: 0x10_0000n }] });
    const manager = newManager(memory);
    t.teardown(async () => {
      await manager.close();
      await memory.close();
    });
    const error = await t.throwsAsync(manager.open(bdf), { instanceOf: PeerDmaError, code: 'ERR_IOVA_UNREACHABLE' });
    t.is(error?.errno, 'EINVAL');
    t.is(String(error?.range), '0xfee00000..0xfef00000');
    t.regex(error?.message ?? '', /"ram0".*0xfef00000\.\./);
    t.deepEqual(manager.inspect().containers, []);
    t.deepEqual(memory.inspect().targets, []);
  },
);

/** A device of the testbed in a group with a device that the guest's kernel drives. */
const entangled = process.env['PEERDMA_TESTBED_ENTANGLED'];
const sharing = 'a group with devices of the host is not viable: the error names these devices and their drivers';
if (entangled === undefined) {
  test.serial.skip(`${sharing} (needs PEERDMA_TESTBED_ENTANGLED; npm test runs it in the testbed)`, () => {});
} else {
  test.serial(sharing, async (t) => {
    const { memory, manager, open } = await rig(t);
    const error = await t.throwsAsync(open(entangled), { instanceOf: PeerDmaError, code: 'ERR_GROUP_NOT_VIABLE' });
    t.is(error?.bdf, entangled);
    const [, other = ''] = /: (\S+) \(driver virtio-pci\)\./.exec(error?.message ?? '') ?? [];
    t.is(groupOf(other), groupOf(entangled), error?.message);
    t.deepEqual([manager.inspect().containers, memory.inspect().targets], [[], []]);

    writeFileSync(`/sys/bus/pci/devices/${other}/driver/unbind`, other);
    t.teardown(async () => {
      await manager.close(); // while VFIO has the group, no other driver can bind a device of it
      writeFileSync('/sys/bus/pci/drivers_probe', other);
    });
    t.is((await open(entangled)).bdf, entangled, 'without the other device it can be opened');
  });
}
