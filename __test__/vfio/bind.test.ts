/**
 * `peerdma bind` and `unbind` on a real kernel, for devices that are opened before or after. Each test restores the
 * drivers of its devices.
 */
import { closeSync, constants, existsSync, mkdtempSync, openSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { functionAt, readHost } from '../../ts/host.ts';
import { type MachineRoots, thisMachine } from '../../ts/host/machine.ts';
import { rejectsCode } from '../support/errors.ts';
import { until } from '../support/until.ts';
import { testWith } from './support/devices.ts';
import { BOUND, assertRefused, restoreDrivers, run, runSuccessfully, state, writer } from './support/drivers.ts';
import { rig } from './support/rig.ts';

const entangled = process.env['PEERDMA_TESTBED_ENTANGLED'];

/** This machine without visible processes, as in another container. */
function withoutProcesses(t: ExecutionContext): () => MachineRoots {
  const proc = mkdtempSync(join(tmpdir(), 'peerdma-proc-'));
  t.teardown(() => rmSync(proc, { recursive: true }));
  return () => ({ ...thisMachine(), proc });
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

const whole = 'binds a whole group to VFIO and unbinds it';
if (entangled === undefined) {
  test.serial.skip(`${whole} (needs PEERDMA_TESTBED_ENTANGLED; npm test runs it in the testbed)`, () => {});
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
}

/** Disks with a driver of the guest. */
function disksOf(bdf: string): string[] {
  const folder = `/sys/bus/pci/devices/${bdf}/nvme`;
  const controllers = existsSync(folder) ? readdirSync(folder) : [];
  return controllers.flatMap((name) => readdirSync(join(folder, name)).filter((each) => /^nvme\d+n\d+$/.test(each)));
}
