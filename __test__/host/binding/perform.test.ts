/**
 * A binding plan is performed completely or not at all, for each write that may fail.
 */
import { chmodSync, existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { newSysfsWriter } from '../../../ts/host/binding/sysfs-writer.ts';
import { perform } from '../../../ts/host/binding/perform.ts';
import { type BindingPlan, planBind, planUnbind } from '../../../ts/host/binding/plan.ts';
import { readHost } from '../../../ts/host.ts';
import { throwsCode } from '../../support/errors.ts';
import { rootsOf } from '../use/support.ts';
import { FakeBus } from './fake-bus.ts';

const PCI = `
host 0000:00
  02.0 1b36:0010 endpoint class=010802 group=1 driver=nvme
  03.0 1b36:0010 endpoint class=010802 group=1
  04.0 1b36:0010 endpoint class=010802 group=1 driver=other override=other
`;
const DEVICES = ['0000:00:02.0', '0000:00:03.0', '0000:00:04.0'];
const NATIVE = { '0000:00:02.0': 'nvme' };
const DRIVERS = ['nvme', 'other', 'vfio-pci']
  .map((name) => `[sys/bus/pci/drivers/${name}]\nbind =\nunbind =\n`)
  .join('');

interface Scene {
  readonly sys: string;
  readonly bus: FakeBus;
  /** The driver and override of each device. */
  state(): [string | undefined, string | undefined][];
}

function scene(t: ExecutionContext): Scene {
  const { sys } = rootsOf(t, { pci: PCI, rest: `${DRIVERS}[sys/bus/pci]\ndrivers_probe =\n` });
  const bus = new FakeBus(sys, NATIVE);
  return { sys, bus, state: () => DEVICES.map((address) => [bus.driverOf(address), bus.overrideOf(address)]) };
}

function planOf(sys: string, act: 'bind' | 'unbind'): BindingPlan {
  const devices = [...readHost(sys).functions.values()];
  return act === 'bind' ? planBind(devices, undefined, () => true) : planUnbind(devices);
}

/** The drivers before and after `bind`. */
const BEFORE = [
  ['nvme', undefined],
  [undefined, undefined],
  ['other', 'other'],
];
const BOUND = DEVICES.map(() => ['vfio-pci', 'vfio-pci']);
const UNBOUND = [
  ['nvme', undefined],
  [undefined, undefined],
  [undefined, undefined],
];
const WRITES = 8;

test('binds a group and unbinds it again', (t) => {
  const { sys, bus, state } = scene(t);
  t.deepEqual(state(), BEFORE as never);
  t.deepEqual(
    perform(planOf(sys, 'bind'), bus).map(({ device, driver }) => [device.address, device.driver, driver]),
    [
      ['0000:00:02.0', 'nvme', 'vfio-pci'],
      ['0000:00:03.0', undefined, 'vfio-pci'],
      ['0000:00:04.0', 'other', 'vfio-pci'],
    ],
  );
  t.deepEqual(state(), BOUND as never);
  t.deepEqual(bus.writes, [
    'vfio-pci > bus/pci/devices/0000:00:02.0/driver_override',
    '0000:00:02.0 > bus/pci/drivers/nvme/unbind',
    '0000:00:02.0 > bus/pci/drivers_probe',
    'vfio-pci > bus/pci/devices/0000:00:03.0/driver_override',
    '0000:00:03.0 > bus/pci/drivers_probe',
    'vfio-pci > bus/pci/devices/0000:00:04.0/driver_override',
    '0000:00:04.0 > bus/pci/drivers/other/unbind',
    '0000:00:04.0 > bus/pci/drivers_probe',
  ]);
  t.deepEqual(
    perform(planOf(sys, 'unbind'), bus).map(({ driver }) => driver),
    ['nvme', undefined, undefined],
  );
  t.deepEqual(state(), UNBOUND as never, 'each with the driver that the kernel finds');
});

for (const late of [false, true]) {
  test(`a failing write${late ? ' that took effect' : ''} of bind restores all devices`, (t) => {
    for (let k = 1; k <= WRITES; k++) {
      const { sys, bus, state } = scene(t);
      bus.failsLate = late;
      bus.failing = (count) => count === k;
      const error = throwsCode(t, () => perform(planOf(sys, 'bind'), bus), 'ERR_BIND_FAILED');
      t.is(error.errno, 'EIO');
      t.regex(error.message, /^\/sys\/bus\/pci\/.*: write failed: the kernel rejected it \(EIO\)\. Restored: 0000/);
      t.deepEqual(state(), BEFORE as never, `write ${k}`);
      const begun = [3, 5, 8].findIndex((last) => k <= last) + 1;
      for (const [index, address] of DEVICES.entries()) {
        t.is(error.message.includes(`${address} (`), index < begun, `write ${k}: ${error.message}`);
      }
    }
  });

  test(`a failing write${late ? ' that took effect' : ''} of unbind restores all devices`, (t) => {
    for (let k = 1; k <= 9; k++) {
      const { sys, bus, state } = scene(t);
      perform(planOf(sys, 'bind'), bus);
      bus.writes.length = 0;
      bus.failsLate = late;
      bus.failing = (count) => count === k;
      throwsCode(t, () => perform(planOf(sys, 'unbind'), bus), 'ERR_BIND_FAILED');
      t.deepEqual(state(), BOUND as never, `write ${k}`);
    }
  });
}

test('reports devices whose drivers cannot be restored, and restores the others', (t) => {
  const { sys, bus, state } = scene(t);
  // The last write of the third device, and the write that restores its driver.
  bus.failing = (count) => count === 8 || count === 10;
  const error = throwsCode(t, () => perform(planOf(sys, 'bind'), bus), 'ERR_ROLLBACK_FAILED');
  t.regex(
    error.message,
    /Restored: 0000:00:03\.0 \(no driver\), 0000:00:02\.0 \(nvme\)\. Not restored: 0000:00:04\.0 /,
  );
  t.regex(error.message, / \(other\): .*drivers\/other\/bind: write failed: the kernel rejected it \(EIO\)$/);
  t.deepEqual(state(), [...BEFORE.slice(0, 2), [undefined, 'other']] as never);
});

test('rejects a driver that silently does not bind the device', (t) => {
  const { sys, bus, state } = scene(t);
  bus.untaken.add('0000:00:03.0');
  const error = throwsCode(t, () => perform(planOf(sys, 'bind'), bus), 'ERR_BIND_FAILED');
  t.regex(
    error.message,
    /^0000:00:03\.0: binding to vfio-pci failed: it has no driver now\. Read the end of dmesg .*\. Restored/,
  );
  t.is(error.bdf, '0000:00:03.0');
  t.deepEqual(state(), BEFORE as never);

  const variant = planBind([...readHost(sys).functions.values()], 'mlx5_vfio_pci', () => true);
  bus.untaken.add('0000:00:02.0');
  const other = throwsCode(t, () => perform(variant, bus), 'ERR_BIND_FAILED');
  t.regex(other.message, /binding to mlx5_vfio_pci failed: .* \(mlx5_vfio_pci supports only certain devices\)/);
  t.deepEqual(state(), BEFORE as never);
});

test('rejects an unbind after which the device is bound to vfio-pci again', (t) => {
  const { sys } = scene(t);
  const bus = new FakeBus(sys, { '0000:00:02.0': 'vfio-pci' });
  perform(planOf(sys, 'bind'), bus);
  const error = throwsCode(t, () => perform(planOf(sys, 'unbind'), bus), 'ERR_BIND_FAILED');
  t.regex(error.message, /0000:00:02\.0: unbinding failed: vfio-pci took it again.*vfio-pci ids=/);
  t.deepEqual([bus.driverOf('0000:00:02.0'), bus.overrideOf('0000:00:02.0')], ['vfio-pci', 'vfio-pci']);
});

test('loads the module first, and writes nothing if that fails', (t) => {
  const { sys, bus, state } = scene(t);
  const plan: BindingPlan = { ...planOf(sys, 'bind'), module: 'vfio-pci' };
  bus.loadProblem = 'FATAL: Module vfio-pci not found';
  const error = throwsCode(t, () => perform(plan, bus), 'ERR_VFIO_UNAVAILABLE');
  t.regex(error.message, /"modprobe vfio-pci" failed: FATAL: Module vfio-pci not found\. Nothing was changed/);
  t.deepEqual([bus.writes, state()], [[], BEFORE as never]);
  bus.loadProblem = undefined;
  perform(plan, bus);
  t.deepEqual(bus.modules, ['vfio-pci', 'vfio-pci']);
});

test('reports a device that is removed or changes its driver during the change', (t) => {
  const { sys, bus } = scene(t);
  const plan = planOf(sys, 'bind');
  bus.write({ path: 'bus/pci/drivers/nvme/unbind', text: '0000:00:02.0\n' });
  const changed = throwsCode(t, () => perform(plan, bus), 'ERR_BIND_FAILED');
  t.is(changed.errno, 'ENODEV');
  rmSync(join(sys, 'bus/pci/devices/0000:00:02.0/driver_override'));
  const gone = throwsCode(t, () => perform(plan, bus), 'ERR_BIND_FAILED');
  t.is(gone.errno, 'ENOENT');
  t.regex(
    gone.message,
    /devices\/0000:00:02\.0\/driver_override: write failed: the kernel rejected it \(ENOENT\)$/,
    'nothing was started',
  );
});

test('writes nothing for an empty plan', (t) => {
  const { bus } = scene(t);
  t.deepEqual(perform({ module: undefined, changes: [], unchanged: [] }, bus), []);
  t.deepEqual(bus.writes, []);
});

const errnos = { EACCES: /only root can write to .*sudo/, EPERM: /only root/, EROFS: /on the host/ };
for (const [errno, advice] of Object.entries(errnos)) {
  test(`reports missing permission (${errno}) before any write`, (t) => {
    const { sys, bus } = scene(t);
    bus.tryAccess = () => {
      throw Object.assign(new Error(errno), { code: errno });
    };
    const plan: BindingPlan = { ...planOf(sys, 'bind'), module: 'vfio-pci' };
    const error = throwsCode(t, () => perform(plan, bus), 'ERR_PERMISSION');
    t.regex(error.message, advice);
    t.deepEqual([bus.writes, bus.modules], [[], []]);
  });
}

if (process.geteuid?.() !== 0) {
  test('rejects a plain user who cannot write to /sys', (t) => {
    const { sys, bus } = scene(t);
    chmodSync(join(sys, 'bus/pci/devices/0000:00:02.0/driver_override'), 0o444);
    throwsCode(t, () => perform(planOf(sys, 'bind'), bus), 'ERR_PERMISSION');
  });
}

test('the writer creates no files', (t) => {
  const { sys } = scene(t);
  const path = 'bus/pci/drivers/nvme/new_id';
  const error = t.throws(() => newSysfsWriter(sys).write({ path, text: 'x' }));
  t.is((error as NodeJS.ErrnoException).code, 'ENOENT');
  t.false(existsSync(join(sys, path)));
});
