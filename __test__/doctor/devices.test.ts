/**
 * Findings about a device, each in each state.
 */
import test from 'ava';
import { diagnosisOf } from '../../ts/doctor/diagnose.ts';
import { diagnoseByOpening } from '../../ts/doctor/diagnose-by-opening.ts';
import { diagnose } from '../../ts/host.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { rejectsCode } from '../support/errors.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import {
  GPU,
  MACHINE,
  NIC,
  NO_IOMMU,
  SYS,
  TOP,
  type Wishes,
  diagnosed,
  factsOf,
  found,
  noContainer,
  noIommufd,
  one,
} from './support.ts';

const AUDIO = 'bus=01-01 group=1 driver=pcieport\n    00.1 10de:2331 endpoint class=040300 group=20';
const withAudio = (driver: string): string =>
  MACHINE.replace('bus=01-01 group=1 driver=pcieport', `${AUDIO} ${driver}`);

/** The access of a user to files. In the tests, which run as root, the folders permit everything. */
function denied(t: Parameters<typeof factsOf>[0], wishes: Wishes, files: Record<string, string>) {
  const facts = factsOf(t, wishes);
  const access = new Map([...facts.system.access, ...Object.entries(files)]);
  return diagnosisOf({ ...facts, system: { ...facts.system, access } }, [GPU]);
}

test('reports a device without problems', (t) => {
  const { devices } = diagnosed(t);
  t.deepEqual(
    devices[0]?.findings.map(({ id, state }) => [id, state]),
    [
      ['group', 'ok'],
      ['driver', 'ok'],
      ['group-viable', 'ok'],
      ['free', 'ok'],
      ['backend', 'ok'],
      ['reset', 'ok'],
      ['bar', 'ok'],
      ['bar', 'ok'],
      ['bar', 'warning'],
      ['bar', 'ok'],
    ],
  );
  t.is(devices[0]?.state, 'warning', 'the worst of them');
  t.is(devices[0]?.pci.classCode, 0x030200);
});

test('reports the group: alone, with others, none', (t) => {
  t.is(one(diagnosed(t), 'group').text, 'IOMMU group 20, alone');
  const shared = one(diagnosed(t, { machine: withAudio('driver=snd_hda_intel') }), 'group');
  t.is(shared.text, 'IOMMU group 20, with 0000:01:00.1 (snd_hda_intel)');
  const none = diagnosed(t, { machine: MACHINE.replace(' group=20', '') });
  t.like(one(none, 'group'), { state: 'blocked', code: 'ERR_NO_IOMMU_GROUP' });
  for (const id of ['group-viable', 'free', 'backend'] as const) t.deepEqual(found(none, id), [], id);
});

test('reports the driver: VFIO, a host driver, none', (t) => {
  t.is(one(diagnosed(t), 'driver').text, 'bound to vfio-pci');
  const used = one(diagnosed(t, {}, [NIC]), 'driver');
  t.like(used, { state: 'blocked', code: 'ERR_DEVICE_NOT_BOUND', fix: `sudo npx peerdma bind ${NIC}` });
  t.regex(used.text, /in use by the driver mlx5_core: bind it to vfio-pci/);
  const free = one(diagnosed(t, { machine: MACHINE.replace(' driver=mlx5_core', '') }, [NIC]), 'driver');
  t.regex(free.text, /bound to no driver/);
  for (const id of ['group-viable', 'free', 'backend'] as const)
    t.deepEqual(found(diagnosed(t, {}, [NIC]), id), [], id);
});

test('reports uses of a device by the host, and no command that bind would reject', (t) => {
  const needed = (kind: 'network' | 'keyboard', devices = [NIC]) =>
    diagnosed(t, { facts: { usesOf: () => [{ kind, text: 'carries the file system at / (eno1)' }] } }, devices);
  const used = one(needed('network'), 'driver');
  t.like(used, { state: 'blocked', code: 'ERR_DEVICE_NOT_BOUND', fix: undefined });
  t.regex(
    used.text,
    /is in use by this machine \(driver mlx5_core\): it carries the file system at \/ \(eno1\)\. End that/,
  );
  t.is(one(needed('keyboard'), 'driver').fix, `sudo npx peerdma bind ${NIC}`, 'bind only notes these');
  t.is(one(needed('network', [GPU]), 'driver').text, 'bound to vfio-pci');
});

test('reports members that the host uses, but not ports and devices without a driver', (t) => {
  const used = diagnosed(t, { machine: withAudio('driver=snd_hda_intel') });
  const finding = one(used, 'group-viable');
  t.like(finding, { state: 'blocked', code: 'ERR_GROUP_NOT_VIABLE', fix: `sudo npx peerdma bind --group ${GPU}` });
  t.regex(finding.text, /0000:01:00\.1 \(driver snd_hda_intel\)/);
  t.deepEqual(found(used, 'backend'), []);
  for (const driver of ['', 'driver=vfio-pci vfio=vfio1', 'driver=pcieport']) {
    t.is(one(diagnosed(t, { machine: withAudio(driver) }), 'group-viable').state, 'ok', driver);
  }
});

for (const [what, file] of [
  ['its group', '/dev/vfio/20'],
  ['its own file', '/dev/vfio/devices/vfio0'],
  ['another device of its group', '/dev/vfio/devices/vfio1'],
] as const) {
  test(`a device is in use: ${what}`, (t) => {
    const machine = withAudio('driver=vfio-pci vfio=vfio1');
    const diagnosis = diagnosed(t, { machine, top: TOP.replace('-> /dev/kvm', `-> ${file}`) });
    const finding = one(diagnosis, 'free');
    t.like(finding, { state: 'blocked', code: 'ERR_GROUP_BUSY' });
    t.regex(finding.text, /is open already: qemu-system-x86 \(process 4711\) has it\. Close it there/);
    t.deepEqual(found(diagnosis, 'backend'), []);
  });
}

test('reports several openers: of the group and of the device file', (t) => {
  const top = TOP.replace('-> /dev/kvm', '-> /dev/vfio/20\n[proc/4712]\ncomm = node\nfd/3 -> /dev/vfio/devices/vfio0');
  const { text } = one(diagnosed(t, { top }), 'free');
  t.regex(text, /open already: qemu-system-x86 \(process 4711\) and node \(process 4712\) have it\. Close it there/);
});

test('reports openers as unknown for a plain user', (t) => {
  const finding = one(diagnosed(t, { facts: { seesAllProcesses: false } }), 'free');
  t.is(finding.state, 'unknown');
  const own = { top: TOP.replace('-> /dev/kvm', '-> /dev/vfio/20'), facts: { seesAllProcesses: false } };
  t.is(one(diagnosed(t, own), 'free').state, 'blocked', 'every user sees its own process');
});

test('reports iommufd if it supports all features, otherwise type1 with the reason', (t) => {
  const iommufd = one(diagnosed(t), 'backend');
  t.is(iommufd.text, 'opened by iommufd');
  t.regex(iommufd.evidence, /^the kernel has iommufd, device files, and BARs as dma-bufs; derived from Linux 7\.3/);
  const cases: [what: string, wishes: Wishes, reason: RegExp][] = [
    [
      'no iommufd',
      { facts: { probes: { type1: 'opened', iommufd: noIommufd('ENOENT') } } },
      /there is no \/dev\/iommu/,
    ],
    ['no MAP_FILE', { facts: { probes: { type1: 'opened', iommufd: { mapsFiles: false } } } }, /maps no files/],
    [
      'no file',
      { machine: MACHINE.replace(' vfio=vfio0', '') },
      /0000:01:00\.0 has no file below \/dev\/vfio\/devices/,
    ],
    ['no dma-bufs', { top: TOP.replaceAll('7.3.4', '6.18.4') }, /does not export BARs as dma-bufs/],
    [
      'unsafe interrupts for type1 alone',
      { sys: SYS.replace('IR-IO-APIC', 'IO-APIC').replace('interrupts = N', 'interrupts = Y') },
      /no interrupt remapping/,
    ],
  ];
  for (const [what, wishes, reason] of cases) {
    const finding = one(diagnosed(t, wishes), 'backend');
    t.is(finding.text, 'opened by type1', what);
    t.is(finding.state, 'ok', what);
    t.regex(finding.evidence, /^iommufd cannot be used: /, what);
    t.regex(finding.evidence, reason, what);
  }
  const denies = one(denied(t, {}, { '/dev/vfio/devices/vfio0': 'EACCES' }), 'backend');
  t.is(denies.text, 'opened by type1');
  t.regex(denies.evidence, /may not open \/dev\/vfio\/devices\/vfio0/);
});

test('reports iommufd if it accepts unsafe interrupts', (t) => {
  const sys = SYS.replace('IR-IO-APIC', 'IO-APIC').replaceAll('interrupts = N', 'interrupts = Y');
  t.is(one(diagnosed(t, { sys }), 'backend').text, 'opened by iommufd');
});

test('reports both back ends while support of dma-bufs is unknown', (t) => {
  const top = TOP.replace(/config-.*/, '');
  const either = one(diagnosed(t, { top }), 'backend');
  t.is(either.state, 'ok', 'it can be opened in any case');
  t.is(either.text, 'opened by iommufd if its BARs can be exported as dma-bufs, otherwise by type1');
  const probes = { type1: noContainer('EACCES'), iommufd: { mapsFiles: true } };
  const perhaps = one(diagnosed(t, { top, facts: { probes } }), 'backend');
  t.is(perhaps.state, 'unknown');
  t.regex(perhaps.text, /otherwise by type1, which then fails: this user may not open \/dev\/vfio\/vfio/);
  const variant = one(
    diagnosed(t, { machine: MACHINE.replace('driver=vfio-pci', 'driver=nvgrace-vfio-pci') }),
    'backend',
  );
  t.regex(variant.evidence, /whether the driver nvgrace-vfio-pci exports BARs is unknown/);
});

test('reports why neither back end can open a device', (t) => {
  const files = { '/dev/vfio/20': 'EACCES', '/dev/vfio/devices/vfio0': 'EACCES' };
  const finding = one(denied(t, {}, files), 'backend');
  t.like(finding, { state: 'blocked', code: 'ERR_PERMISSION', fix: 'sudo chown "$USER" /dev/vfio/20' });
  t.regex(finding.text, /may not open \/dev\/vfio\/20, the group of 0000:01:00\.0/);
  const missing = one(denied(t, {}, { '/dev/vfio/20': 'ENOENT', '/dev/vfio/devices/vfio0': 'ENOENT' }), 'backend');
  t.is(missing.code, 'ERR_GROUP_OPEN');
  t.is(missing.fix, undefined, 'a container has no command for files that it was not given');
  const unsafe = one(diagnosed(t, { sys: SYS.replace('IR-IO-APIC', 'IO-APIC') }), 'backend');
  t.like(unsafe, { state: 'blocked', code: 'ERR_NO_INTERRUPT_REMAPPING' });
});

test('reports the reset methods', (t) => {
  t.like(one(diagnosed(t), 'reset'), { state: 'ok', text: 'can be reset: flr, bus' });
  const none = one(diagnosed(t, { machine: MACHINE.replace(' reset=flr,bus', '') }), 'reset');
  t.is(none.state, 'warning');
  const facts = factsOf(t);
  const gpu = facts.host.functions.get(GPU);
  if (gpu === undefined) throw new Error('there is a GPU');
  const functions = new Map([[GPU, { ...gpu, resetMethods: 'unknown' as const }]]);
  const old = one(diagnosisOf({ ...facts, host: { ...facts.host, functions } }, [GPU]), 'reset');
  t.like(old, { state: 'ok', text: 'can be reset; kernels before 5.15 do not report how' });
});

test('reports mapping, export and page size of BARs', (t) => {
  const bars = (wishes: Wishes) => found(diagnosed(t, wishes), 'bar').map(({ bar }) => bar);
  t.deepEqual(bars({}), [
    { index: 0, length: 16n << 20n, mappable: true, exportable: true, pageSize: 2n << 20n },
    { index: 2, length: 2n << 30n, mappable: true, exportable: true, pageSize: 1n << 30n },
    { index: 4, length: 256n, mappable: false, exportable: false, pageSize: 0n },
    { index: 5, length: 128n, mappable: false, exportable: false, pageSize: 0n },
  ]);
  t.is(bars({ top: TOP.replace('CONFIG_VFIO_PCI_DMABUF=y', '') })[0]?.exportable, false);
  t.is(bars({ top: TOP.replace(/config-.*/, '') })[0]?.exportable, 'unknown');
  t.is(bars({ machine: MACHINE.replace('driver=vfio-pci', 'driver=mlx5_vfio_pci') })[0]?.exportable, 'unknown');
  t.is(bars({ machine: MACHINE.replace('16M@0x22000000000', '16M@0x22000100000') })[0]?.pageSize, 4096n);
});

test('reports BARs that cannot be mapped or are slow to map', (t) => {
  const [, large, small, io] = found(diagnosed(t), 'bar');
  t.is(large?.state, 'ok');
  t.regex(small?.text ?? '', /^BAR 4, 256 B at 0x80000000: 256 bytes, less than a page/);
  t.like(io, { state: 'ok' }, 'it is not used in a mapping');
  const [, slow] = found(diagnosed(t, { top: TOP.replaceAll('7.3.4', '6.15.4') }), 'bar');
  t.is(slow?.state, 'warning');
  t.regex(slow?.text ?? '', /Before Linux 6\.16/);
  const [, fast] = found(diagnosed(t, { top: TOP.replaceAll('7.3.4', '6.16.4') }), 'bar');
  t.is(fast?.state, 'ok');
  const [homeless] = found(diagnosed(t, { machine: MACHINE.replace('16M@0x22000000000', '16M') }), 'bar');
  t.is(homeless?.state, 'warning');
  t.regex(homeless?.text ?? '', /^BAR 0, 16 MiB: has no address on the host/);
  t.regex(homeless?.fix ?? '', /pci=realloc/);
});

test('reports use by the host as a warning if no device is named', (t) => {
  const { devices } = diagnosisOf(factsOf(t), undefined);
  t.deepEqual(
    devices.map(({ address, findings }) => [address, findings.find(({ id }) => id === 'driver')?.state]),
    [
      [GPU, 'ok'],
      [NIC, 'warning'],
    ],
  );
  const off = diagnosisOf(factsOf(t, { machine: NO_IOMMU }), undefined);
  const group = (index: number) => off.devices[index]?.findings.find(({ id }) => id === 'group');
  t.is(group(0)?.state, 'blocked', 'VFIO has it, so it is in use');
  t.like(group(1), { state: 'warning', code: undefined });
  t.is(off.state, 'blocked');
});

test('reports the error of opening, and does not open blocked devices', async (t) => {
  // In a PCI domain that does not exist, so that the device is missing when it is opened.
  const [gpu, nic] = [GPU, NIC].map((address) => address.replace('0000', 'fffe'));
  const facts = factsOf(t, { machine: MACHINE.replace('host 0000', 'host fffe') });
  const before = diagnosisOf(facts, [gpu ?? '', nic ?? '']);
  const after = await diagnoseByOpening(facts, before);
  t.is(after.state, 'blocked');
  t.deepEqual(after.devices[1], before.devices[1], 'it has another driver');
  const backend = after.devices[0]?.findings.find(({ id }) => id === 'backend');
  t.like(backend, { state: 'blocked', code: 'ERR_DEVICE_NOT_FOUND', evidence: 'opening it failed' });
  const others = (index: number) =>
    (index === 0 ? before : after).devices[0]?.findings.filter(({ id }) => id !== 'backend');
  t.deepEqual(others(1), others(0));
});

test('rejects invalid options', async (t) => {
  const sysfs = expandTree(t, describeMachine(MACHINE));
  const { devices } = await diagnose({ sysfs, devices: ['01:00.0', GPU] });
  t.deepEqual(
    devices.map(({ address }) => address),
    [GPU],
    'once',
  );
  await rejectsCode(t, diagnose({ sysfs, devices: ['09:00.0'] }), 'ERR_DEVICE_NOT_FOUND');
  await rejectsCode(t, diagnose({ sysfs, devices: ['gpu'] }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, diagnose({ sysfs: '/nowhere' }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, diagnose({ sysfs, open: true }), 'ERR_INVALID_ARGUMENT');
  const wrong = (value: unknown) => value as never;
  await rejectsCode(t, diagnose({ sysfs, devices: wrong(GPU) }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, diagnose({ sysfs, devices: wrong([undefined]) }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, diagnose(wrong(null)), 'ERR_INVALID_ARGUMENT');
  for (const ram of [0n, -1n, wrong(16)]) {
    await rejectsCode(t, diagnose({ sysfs, ram }), 'ERR_INVALID_ARGUMENT');
  }
});
