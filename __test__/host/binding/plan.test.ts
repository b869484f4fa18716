/**
 * The devices that a command line chooses, and the planned writes.
 */
import test, { type ExecutionContext } from 'ava';
import { chosenDevices, planBind, planUnbind } from '../../../ts/host/binding/plan.ts';
import { throwsCode } from '../../support/errors.ts';
import { at, described, hostOf } from '../support.ts';

const loaded = (): boolean => true;
const at00 = '/sys/bus/pci/devices/0000:00';

function written(plan: ReturnType<typeof planBind>): string[] {
  return plan.changes.flatMap(({ writes }) => writes).map(({ path, text }) => `${JSON.stringify(text)} > /sys/${path}`);
}

function machine(t: ExecutionContext) {
  return hostOf(
    t,
    `
host 0000:00
  00.0 8086:3a00 class=060000 group=5
  02.0 1b36:0010 endpoint class=010802 group=1 driver=nvme
  03.0 1b36:0010 endpoint class=010802 group=2 override=other
  04.0 15b3:101e endpoint class=020000 group=3 driver=mlx5_vfio_pci override=mlx5_vfio_pci
  05.0 1b36:0010 endpoint class=010802 group=4 driver=vfio-pci override=vfio-pci
  06.0 1b36:0010 endpoint class=010802 driver=nvme
  1c.0 8086:a110 root-port bus=01-01 group=5 driver=pcieport
    00.0 10de:2330 endpoint class=030000 group=5 driver=nouveau
    00.1 10de:2331 endpoint class=040300 group=5 driver=snd_hda_intel
    00.2 10de:2332 endpoint class=0c0330 group=5 driver=pci-stub
  1b.0 8086:a112 root-port bus=03-03 group=5 driver=odd_port
  1d.0 8086:a111 root-port bus=02-02 group=6 driver=pcieport
  1f.0 8086:a082 class=060100 group=5 driver=lpc_ich
`,
  );
}

test('bind sets the override, unbinds the old driver and probes', (t) => {
  const host = machine(t);
  const plan = planBind([at(host, '00:02.0'), at(host, '00:03.0')], undefined, loaded);
  t.deepEqual(written(plan), [
    `"vfio-pci\\n" > ${at00}:02.0/driver_override`,
    '"0000:00:02.0\\n" > /sys/bus/pci/drivers/nvme/unbind',
    '"0000:00:02.0\\n" > /sys/bus/pci/drivers_probe',
    `"vfio-pci\\n" > ${at00}:03.0/driver_override`,
    '"0000:00:03.0\\n" > /sys/bus/pci/drivers_probe',
  ]);
  t.is(plan.module, undefined);
  t.deepEqual(
    plan.changes.map(({ to }) => to),
    ['vfio-pci', 'vfio-pci'],
  );
});

test('bind skips devices of VFIO, unless another variant is requested', (t) => {
  const host = machine(t);
  const devices = [at(host, '00:04.0'), at(host, '00:05.0')];
  const plain = planBind(devices, undefined, () => false);
  t.deepEqual([plain.changes, plain.unchanged, plain.module], [[], devices, undefined]);
  const variant = planBind(devices, 'mlx5_vfio_pci', loaded);
  t.deepEqual(variant.unchanged, [at(host, '00:04.0')]);
  t.deepEqual(written(variant), [
    `"mlx5_vfio_pci\\n" > ${at00}:05.0/driver_override`,
    '"0000:00:05.0\\n" > /sys/bus/pci/drivers/vfio-pci/unbind',
    '"0000:00:05.0\\n" > /sys/bus/pci/drivers_probe',
  ]);
  t.is(planBind(devices, 'vfio-pci', (name) => name !== 'vfio-pci').module, 'vfio-pci', 'this module is not loaded');
});

test('unbind clears the override', (t) => {
  const host = machine(t);
  const devices = ['00:02.0', '00:03.0', '00:04.0', '00:05.0'].map((address) => at(host, address));
  const plan = planUnbind(devices);
  t.deepEqual(plan.unchanged, devices.slice(0, 2), 'they are not bound to VFIO, and stay so');
  t.deepEqual(written(plan), [
    `"\\n" > ${at00}:04.0/driver_override`,
    '"0000:00:04.0\\n" > /sys/bus/pci/drivers/mlx5_vfio_pci/unbind',
    '"0000:00:04.0\\n" > /sys/bus/pci/drivers_probe',
    `"\\n" > ${at00}:05.0/driver_override`,
    '"0000:00:05.0\\n" > /sys/bus/pci/drivers/vfio-pci/unbind',
    '"0000:00:05.0\\n" > /sys/bus/pci/drivers_probe',
  ]);
  t.deepEqual([...new Set(plan.changes.map(({ to }) => to))], [undefined]);
});

test('unbind clears the override of a device that VFIO did not bind', (t) => {
  const host = hostOf(t, 'host 0000:00\n  02.0 1b36:0010 endpoint class=010802 group=1 override=vfio-pci');
  t.deepEqual(written(planUnbind([at(host, '00:02.0')])), [
    `"\\n" > ${at00}:02.0/driver_override`,
    '"0000:00:02.0\\n" > /sys/bus/pci/drivers_probe',
  ]);
});

test('--group chooses the endpoints of a group', (t) => {
  const host = machine(t);
  const chosen = (...texts: string[]): string[] => chosenDevices(host, texts, true).map(({ address }) => address);
  const group5 = ['0000:00:1f.0', '0000:01:00.0', '0000:01:00.1', '0000:01:00.2'];
  t.deepEqual(chosen('01:00.0'), group5);
  t.deepEqual(chosen('0000:00:1C.0', '01:00.1', '00:02.0'), [...group5, '0000:00:02.0'], 'each once');
  t.deepEqual(chosen('00:1d.0'), ['0000:00:1d.0'], 'a bridge alone in its group');
  t.deepEqual(
    chosenDevices(host, ['01:00.0', '01:00.0'], false).map(({ address }) => address),
    ['0000:01:00.0'],
  );
  throwsCode(t, () => chosen('00:06.0'), 'ERR_NO_IOMMU_GROUP');
  throwsCode(t, () => chosen('00:07.0'), 'ERR_DEVICE_NOT_FOUND');
  throwsCode(t, () => chosen('everything'), 'ERR_INVALID_ARGUMENT');
});

test('--group leaves the port above a GPU', (t) => {
  const host = described(t, 'laptop');
  t.deepEqual(
    chosenDevices(host, ['01:00.0'], true).map(({ address }) => address),
    ['0000:01:00.0'],
  );
});

test('--group binds an endpoint of class "other bridge", such as an NVSwitch, and leaves the chipset', (t) => {
  const host = hostOf(
    t,
    `
host 0000:00
  00.0 8086:3a00 class=060000 group=7
  03.0 10de:22a3 endpoint class=068000 group=7
  04.0 10de:2335 endpoint class=030200 group=7 driver=nvidia
`,
  );
  const chosen = chosenDevices(host, ['00:04.0'], true).map(({ address }) => address);
  t.deepEqual(chosen, ['0000:00:03.0', '0000:00:04.0']);
});

test('--group leaves a function of the chipset without a host driver, unless it is named', (t) => {
  const lines = {
    '00.0': '8086:1237 class=060000', // host bridge
    '01.0': '8086:7000 class=060100', // ISA bridge
    '01.3': '8086:7113 class=068000', // PIIX4 ACPI
    '01.4': '8086:7114 integrated-endpoint class=068000',
    '02.0': '8086:1572 endpoint class=020000',
    '03.0': '10de:22a3 endpoint class=068000', // NVSwitch
  };
  const chosen = (driver: string, ...named: string[]): string[] => {
    const functions = Object.entries(lines).map(([place, line]) => `  ${place} ${line} group=1 ${driver}`);
    const host = hostOf(t, ['host 0000:00', ...functions].join('\n'));
    return chosenDevices(host, named, true).map(({ address }) => address.slice('0000:00:'.length));
  };
  for (const driver of ['', 'driver=pci-stub']) {
    t.deepEqual(chosen(driver, '00:02.0'), ['02.0', '03.0'], driver);
    t.deepEqual(chosen(driver, '00:01.3'), ['01.3', '02.0', '03.0'], driver);
    t.deepEqual(chosen(driver, '00:00.0', '00:02.0'), ['00.0', '02.0', '03.0'], driver);
  }
  t.deepEqual(
    chosen('driver=piix4_smbus', '00:02.0'),
    Object.keys(lines),
    'devices of the host keep the group from VFIO',
  );
  t.deepEqual(chosen('driver=vfio-pci', '00:02.0'), Object.keys(lines), 'devices of VFIO are unbound with the group');
});
