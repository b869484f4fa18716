/**
 * `peerdma bind` and `unbind` on a real kernel: changes of drivers, and rejections. Each test restores the drivers of
 * its devices.
 */
import { deepStrictEqual as deepEqual } from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, constants, existsSync, mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { bindCommand, unbindCommand } from '../../ts/cli/bind/command.ts';
import { newSysfsWriter } from '../../ts/host/binding/sysfs-writer.ts';
import { perform } from '../../ts/host/binding/perform.ts';
import { planBind } from '../../ts/host/binding/plan.ts';
import { type PciFunction, functionAt, readHost } from '../../ts/host.ts';
import { type MachineRoots, thisMachine } from '../../ts/host/machine.ts';
import { entryOf, program, type Outcome } from '../cli/support.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { until } from '../support/until.ts';
import { testWith } from './support/devices.ts';
import { rig } from './support/rig.ts';

const writer = newSysfsWriter('/sys');
const entangled = process.env['PEERDMA_TESTBED_ENTANGLED'];

async function run(args: readonly string[], roots: () => MachineRoots = thisMachine): Promise<Outcome> {
  return program(args, false, { bind: entryOf(bindCommand(roots)), unbind: entryOf(unbindCommand(roots)) });
}

/** The driver and the override. */
function state(bdf: string): (string | undefined)[] {
  return [writer.driverOf(bdf), writer.overrideOf(bdf)];
}

const BOUND = ['vfio-pci', 'vfio-pci'];

/** Runs the command and reports its failure. */
async function runSuccessfully(t: ExecutionContext, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(args);
  t.is(status, 0, stderr);
  return stdout;
}

async function assertRefused(
  t: ExecutionContext,
  args: readonly string[],
  pattern: RegExp,
  roots?: () => MachineRoots,
): Promise<void> {
  const { status, stdout, stderr } = await run(args, roots);
  t.deepEqual([status, stdout], [1, '']);
  t.regex(stderr, pattern);
}

/** This machine without visible processes, as in another container. */
function withoutProcesses(t: ExecutionContext): () => MachineRoots {
  const proc = mkdtempSync(join(tmpdir(), 'peerdma-proc-'));
  t.teardown(() => rmSync(proc, { recursive: true }));
  return () => ({ ...thisMachine(), proc });
}

/** Restores the drivers at the end of the test. */
function restoreDrivers(t: ExecutionContext, ...devices: string[]): void {
  t.teardown(async () => {
    for (const bdf of devices) await run(['bind', '--force', bdf]);
    for (const bdf of devices) deepEqual(state(bdf), BOUND, bdf);
  });
}

testWith(
  { edu: 1 },
  'binds and unbinds a device that no driver of this kernel supports',
  async (t, { edu: [bdf = ''] }) => {
    restoreDrivers(t, bdf);
    t.is(await runSuccessfully(t, 'bind', bdf), `${bdf} is bound to vfio-pci already\n`);
    t.is(
      await runSuccessfully(t, 'unbind', bdf),
      `${bdf} from vfio-pci to none: no driver of this kernel binds to it\n`,
    );
    t.deepEqual(state(bdf), [undefined, undefined]);
    t.is(await runSuccessfully(t, 'unbind', bdf), `${bdf} has no driver already\n`);
    const { open } = await rig(t);
    await rejectsCode(t, open(bdf), 'ERR_DEVICE_NOT_BOUND');

    t.is(await runSuccessfully(t, 'bind', bdf), `${bdf} from no driver to vfio-pci\n`);
    t.deepEqual(state(bdf), BOUND);
    t.is((await open(bdf)).bdf, bdf);
  },
);

testWith({ edu: 1 }, 'the commands of --dry-run have the same effect in a shell', async (t, { edu: [bdf = ''] }) => {
  restoreDrivers(t, bdf);
  for (const [act, after] of [
    ['unbind', [undefined, undefined]],
    ['bind', BOUND],
  ] as const) {
    const commands = await runSuccessfully(t, act, '--dry-run', bdf);
    t.is(spawnSync('sh', ['-e', '-c', commands]).status, 0, commands);
    t.deepEqual(state(bdf), after);
  }
});

testWith(
  { nvme: 1 },
  'binds a disk to its own driver, and refuses to bind it to VFIO while it is in use',
  async (t, { nvme }) => {
    const [bdf = ''] = nvme;
    restoreDrivers(t, bdf);
    if (!existsSync('/sys/bus/pci/drivers/nvme')) {
      t.regex(await runSuccessfully(t, 'unbind', bdf), /to none/);
      t.regex(await runSuccessfully(t, 'bind', bdf), /from no driver/);
      return t.log('this kernel has no nvme driver');
    }
    t.is(await runSuccessfully(t, 'unbind', bdf), `${bdf} from vfio-pci to nvme\n`);
    t.deepEqual(state(bdf), ['nvme', undefined]);
    await until(() => disksOf(bdf).length > 0, 'the disk exists');
    const [disk = ''] = disksOf(bdf);
    const claim = openSync(`/dev/${disk}`, constants.O_RDONLY | constants.O_EXCL);
    try {
      const holds = (who: string): RegExp => new RegExp(`ERR_DEVICE_NEEDED: [^]*holds ${disk}, which ${who}`);
      await assertRefused(t, ['bind', bdf], holds(`is open in \\S+ \\(process ${process.pid}\\)`));
      await assertRefused(t, ['bind', bdf], holds('something on the host has claimed'), withoutProcesses(t));
      t.is((await run(['bind', '--dry-run', '--force', bdf])).status, 0);
    } finally {
      closeSync(claim);
    }
    t.is(await runSuccessfully(t, 'bind', bdf), `${bdf} from nvme to vfio-pci\n`);
    t.deepEqual(disksOf(bdf), []);
    const { open } = await rig(t);
    t.is((await open(bdf)).bdf, bdf);
  },
);

testWith({ any: 1 }, 'refuses to unbind a device that is open', async (t, { any: [bdf = ''] }) => {
  const { open } = await rig(t);
  const device = await open(bdf);
  // A dry run: if it were not refused, the process would wait for itself.
  for (const force of [[], ['--force']]) {
    await assertRefused(
      t,
      ['unbind', '--dry-run', ...force, bdf],
      new RegExp(`ERR_DEVICE_IN_USE: ${bdf} .* open in \\S+ \\(process ${process.pid}\\)`),
    );
  }
  const unseen = /ERR_DEVICE_IN_USE: .* a process that \/proc does not list/;
  await assertRefused(t, ['unbind', '--dry-run', bdf], unseen, withoutProcesses(t));
  t.deepEqual(state(bdf), BOUND);
  await device.close();
  t.regex(await runSuccessfully(t, 'unbind', bdf), /from vfio-pci to/);
  await runSuccessfully(t, 'bind', bdf);
  t.deepEqual(state(bdf), BOUND);
});

testWith({ edu: 2 }, 'a failure restores the devices before it too', async (t, { edu: [first = '', second = ''] }) => {
  restoreDrivers(t, first, second);
  await runSuccessfully(t, 'unbind', first);
  const host = readHost();
  const device = (bdf: string): PciFunction => functionAt(host, bdf);
  const good = planBind([device(first)], undefined, () => true);
  // No driver has this name. The kernel finds none and reports no error.
  const bad = planBind([device(second)], 'no_vfio_pci', () => true);
  const plan = { module: undefined, changes: [...good.changes, ...bad.changes], unchanged: [] };
  const error = throwsCode(t, () => perform(plan, writer), 'ERR_BIND_FAILED');
  t.regex(error.message, new RegExp(`Restored: ${second} \\(vfio-pci\\), ${first} \\(no driver\\)$`));
  t.deepEqual([state(first), state(second)], [[undefined, undefined], BOUND]);
});

testWith({ any: 1 }, 'asks a plain user to run it as root', async (t, { any: [bdf = ''] }) => {
  const main = fileURLToPath(new URL(`../../ts/cli/main${extname(import.meta.url)}`, import.meta.url));
  const nobody = ['--reuid=65534', '--regid=65534', '--clear-groups'];
  const { status, stderr } = spawnSync('setpriv', [...nobody, process.execPath, main, 'unbind', bdf], {
    encoding: 'utf8',
  });
  t.is(status, 1, stderr);
  t.regex(stderr, /ERR_PERMISSION: \/sys\/bus\/pci\/devices\/.*only root can write to it .*sudo/);
  t.deepEqual(state(bdf), BOUND);
});

const whole = 'binds a whole group to VFIO and unbinds it';
const machine = 'refuses the root file system and the bridges of the testbed';
if (entangled === undefined) {
  for (const title of [whole, machine]) {
    test.serial.skip(`${title} (needs PEERDMA_TESTBED_ENTANGLED; npm test runs it in the testbed)`, () => {});
  }
} else {
  test.serial(whole, async (t) => {
    restoreDrivers(t, entangled);
    const host = readHost();
    const { group = -1 } = functionAt(host, entangled);
    const members = host.groups.get(group)?.members ?? [];
    const sibling = members.find((bdf) => writer.driverOf(bdf) === 'virtio-pci') ?? '';

    const there = await runSuccessfully(t, 'bind', '--group', entangled);
    t.is(there, `${entangled} is bound to vfio-pci already\n${sibling} from virtio-pci to vfio-pci\n`);
    const { open, manager } = await rig(t);
    await open(entangled);
    await assertRefused(t, ['unbind', '--dry-run', sibling], /ERR_DEVICE_IN_USE/);
    await manager.close();

    const back = await runSuccessfully(t, 'unbind', '--group', entangled);
    t.is(
      back,
      `${entangled} from vfio-pci to none: no driver of this kernel binds to it\n` +
        `${sibling} from vfio-pci to virtio-pci\n`,
    );
    t.deepEqual(state(sibling), ['virtio-pci', undefined]);
    const alone = await run(['bind', entangled]);
    t.regex(
      alone.stderr,
      new RegExp(`IOMMU group ${group} cannot be assigned yet.*${sibling} \\(driver virtio-pci\\)`),
    );
    t.is(alone.status, 0);
  });

  // A dry run: if it were not refused, the guest would stop.
  test.serial(machine, async (t) => {
    const functions = [...readHost().functions.values()];
    const outcomes: Outcome[] = [];
    for (const { address } of functions.filter(({ driver }) => driver === 'virtio-pci')) {
      outcomes.push(await run(['bind', '--dry-run', address]));
    }
    t.true(
      outcomes.some(({ stderr }) => /ERR_DEVICE_NEEDED: [^]*holds \/.* \(a share of the hypervisor\)/.test(stderr)),
      JSON.stringify(outcomes),
    );
    const bridges = functions.filter(({ bridge }) => bridge !== undefined);
    t.true(bridges.length > 0);
    for (const { address } of bridges) {
      await assertRefused(t, ['bind', '--dry-run', '--force', address], /ERR_UNSUPPORTED: .* is a bridge/);
    }
  });
}

/** Disks with a driver of the guest. */
function disksOf(bdf: string): string[] {
  const folder = `/sys/bus/pci/devices/${bdf}/nvme`;
  const controllers = existsSync(folder) ? readdirSync(folder) : [];
  return controllers.flatMap((name) => readdirSync(join(folder, name)).filter((each) => /^nvme\d+n\d+$/.test(each)));
}
