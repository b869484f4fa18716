/**
 * Findings about assignability: group before binding, firmware, silent devices, VF tokens.
 */
import test from 'ava';
import { diagnosisOf } from '../../ts/doctor/diagnose.ts';
import { diagnoseByOpening } from '../../ts/doctor/diagnose-by-opening.ts';
import { GPU, MACHINE, NIC, NO_IOMMU, TOP, diagnosed, factsOf, found, one } from './support.ts';

const PORT = 'bus=02-02 group=2 driver=pcieport';
/** Beside the network card, which is not bound. */
const beside = (functions: string): string => MACHINE.replace(PORT, `${PORT}\n    ${functions}`);

test('an unbound device is blocked by host devices of its group, and the command binds the group', (t) => {
  const machine = beside('00.1 15b3:101f endpoint class=020000 group=21 driver=mlx5_core');
  const diagnosis = diagnosed(t, { machine }, [NIC]);
  const group = one(diagnosis, 'group-viable');
  t.like(group, { state: 'blocked', code: 'ERR_GROUP_NOT_VIABLE', fix: `sudo npx peerdma bind --group ${NIC}` });
  t.regex(group.text, /0000:02:00\.1 \(driver mlx5_core\)/);
  t.regex(group.text, /bind --group 0000:02:00\.0.*another slot/);
  t.notRegex(group.text, /0000:02:00\.0 \(driver/, 'it does not block itself');
  const driver = one(diagnosis, 'driver');
  t.is(driver.fix, `sudo npx peerdma bind --group ${NIC}`);
  t.notRegex(driver.text, /peerdma bind 0000/);
  t.deepEqual(found(diagnosis, 'free'), []);
});

test('an unbound device is not blocked by ports, VFIO and devices without a driver', (t) => {
  for (const driver of ['', 'driver=vfio-pci', 'driver=pci-stub']) {
    const machine = beside(`00.1 15b3:101f endpoint class=020000 group=21 ${driver}`);
    const diagnosis = diagnosed(t, { machine }, [NIC]);
    t.deepEqual(found(diagnosis, 'group-viable'), [], driver);
    t.is(one(diagnosis, 'driver').fix, `sudo npx peerdma bind ${NIC}`, driver);
  }
});

test('without a named device, a group that the host uses partly is a warning', (t) => {
  const machine = beside('00.1 15b3:101f endpoint class=020000 group=21 driver=mlx5_core');
  const { devices } = diagnosisOf(factsOf(t, { machine }), undefined);
  const nic = devices.find(({ address }) => address === NIC);
  t.like(
    nic?.findings.find(({ id }) => id === 'group-viable'),
    { state: 'warning', code: undefined },
  );
});

test('suggests no bind that is rejected: of a bridge, and without an IOMMU', (t) => {
  const port = one(diagnosed(t, {}, ['0000:00:02.0']), 'driver');
  t.like(port, { state: 'blocked', fix: undefined });
  t.regex(port.text, /is a bridge, which VFIO does not assign/);
  const alone = one(diagnosed(t, { machine: MACHINE.replace(' group=21', '') }, [NIC]), 'driver');
  t.like(alone, { state: 'blocked', code: 'ERR_DEVICE_NOT_BOUND', fix: undefined });
  t.notRegex(alone.text, /peerdma bind/);
});

test('for a device without a group while the IOMMU is on, the remedy is not to turn it on', (t) => {
  const group = one(diagnosed(t, { machine: MACHINE.replace(' group=20', '') }), 'group');
  t.like(group, { state: 'blocked', code: 'ERR_NO_IOMMU_GROUP' });
  t.regex(group.text, /though the IOMMU is on.*igfx_off/);
  t.notRegex(group.text, /intel_iommu=on/);
  const off = one(diagnosed(t, { machine: NO_IOMMU }), 'group');
  t.regex(off.text, /turn on the IOMMU/);
});

const RMRR = 'reserved 20 0x00000000000e8000 0x00000000000e8fff direct';

test('a group with a 1:1 mapping of the firmware cannot be assigned', (t) => {
  const diagnosis = diagnosed(t, { machine: `${MACHINE}\n${RMRR}` });
  const finding = one(diagnosis, 'direct-regions');
  t.is(finding.state, 'blocked');
  t.regex(finding.text, /group 20.*1:1 mapping of 0xe8000\.\.0xe9000 \(RMRR, IVMD\)/);
  t.regex(finding.evidence, /iommu_groups\/20\/reserved_regions/);
  t.deepEqual(found(diagnosis, 'backend'), []);
  t.deepEqual(found(diagnosed(t, { machine: `${MACHINE}\n${RMRR}-relaxable` }), 'direct-regions'), []);
});

test('suggests no bind of an unbound device with a 1:1 mapping', (t) => {
  const diagnosis = diagnosed(t, { machine: `${MACHINE}\n${RMRR.replace('20', '21')}` }, [NIC]);
  t.is(one(diagnosis, 'direct-regions').state, 'blocked');
  t.is(one(diagnosis, 'driver').fix, undefined);
  t.notRegex(one(diagnosis, 'driver').text, /peerdma bind/);
});

test('a 1:1 mapping of a device that is not named is a warning, unless VFIO has it', (t) => {
  const machine = [MACHINE, RMRR, RMRR.replace('20', '21')].join('\n');
  const { devices } = diagnosisOf(factsOf(t, { machine }), undefined);
  const states = devices.map(({ address, findings }) => [
    address,
    findings.find(({ id }) => id === 'direct-regions')?.state,
  ]);
  t.deepEqual(states, [
    [GPU, 'blocked'],
    [NIC, 'warning'],
  ]);
});

test('suggests no bind of the group of a device with a 1:1 mapping', (t) => {
  const machine = beside('00.1 15b3:101f endpoint class=020000 group=21 driver=mlx5_core');
  const group = one(diagnosed(t, { machine: `${machine}\n${RMRR.replace('20', '21')}` }, [NIC]), 'group-viable');
  t.like(group, { state: 'blocked', fix: undefined });
});

test("AMD's 1:1 mappings prevent assignment since Linux 6.6", (t) => {
  const machine = `${MACHINE.replace('dmar0 intel 48', 'dmar0 amd')}\n${RMRR}`;
  t.is(one(diagnosed(t, { machine }), 'direct-regions').state, 'blocked');
  t.is(one(diagnosed(t, { machine, top: TOP.replaceAll('7.3.4', '6.6.0') }), 'direct-regions').state, 'blocked');
  const old = TOP.replaceAll('7.3.4', '6.5.4');
  const before = one(diagnosed(t, { machine, top: old }), 'direct-regions');
  t.is(before.state, 'warning');
  t.regex(before.text, /: Linux 6\.6 and later keep it from VFIO$/);
  t.is(one(diagnosed(t, { machine: `${MACHINE}\n${RMRR}`, top: old }), 'direct-regions').state, 'blocked', 'Intel');
  const unbound = diagnosed(t, { machine: machine.replace('reserved 20', 'reserved 21'), top: old }, [NIC]);
  t.is(one(unbound, 'driver').fix, `sudo npx peerdma bind ${NIC}`, 'a bind that works');
});

test('a device that does not respond is blocked, and neither resettable nor mappable', (t) => {
  const facts = factsOf(t);
  const gpu = facts.host.functions.get(GPU);
  if (gpu === undefined) throw new Error('there is a GPU');
  const silent = { ...gpu, responds: false, powerState: 'D3cold' };
  const functions = new Map([...facts.host.functions, [GPU, silent]]);
  const diagnosis = diagnosisOf({ ...facts, host: { ...facts.host, functions } }, [GPU]);
  const responds = one(diagnosis, 'responds');
  t.is(responds.state, 'blocked');
  t.regex(responds.text, /0000:01:00\.0 does not respond.*D3cold/);
  t.is(one(diagnosis, 'reset').state, 'warning');
  t.notRegex(one(diagnosis, 'reset').text, /can be reset/);
  const bars = found(diagnosis, 'bar').flatMap(({ bar }) => bar ?? []);
  t.true(bars.length > 0 && bars.every(({ mappable, pageSize }) => !mappable && pageSize === 0n));
  t.is(found(diagnosis, 'bar')[0]?.state, 'warning');
  t.deepEqual(found(diagnosis, 'backend'), []);
  t.deepEqual(found(diagnosed(t), 'responds'), [], 'one that responds');
  const unread = new Map([...facts.host.functions, [GPU, { ...gpu, responds: 'unknown' as const }]]);
  t.deepEqual(found(diagnosisOf({ ...facts, host: { ...facts.host, functions: unread } }, [GPU]), 'responds'), []);
});

const [PF, VF] = ['0000:02:00.0', '0000:02:00.1'] as const;
const withVirtual = (physical: string, virtual: string): string =>
  MACHINE.replace(
    'endpoint class=020000 group=21 driver=mlx5_core',
    `endpoint class=020000 group=21 vfs=4 ${physical}`,
  ).concat(`\n    00.1 15b3:101e endpoint class=020000 group=22 physfn=${PF} ${virtual}`);

test('a virtual function whose physical function is bound to VFIO needs a VF token', async (t) => {
  const facts = factsOf(t, { machine: withVirtual('driver=vfio-pci', 'driver=vfio-pci vfio=vfio3') });
  const diagnosis = diagnosisOf(facts, [VF]);
  const finding = one(diagnosis, 'vf-token');
  t.is(finding.state, 'warning');
  t.regex(
    finding.text,
    /0000:02:00\.1 is a virtual function of 0000:02:00\.0, which is bound to vfio-pci.*VF token.*vfToken/,
  );
  t.deepEqual(
    (await diagnoseByOpening(facts, diagnosis)).devices,
    diagnosis.devices,
    'the token for --open is unknown',
  );
  const host = diagnosed(t, { machine: withVirtual('driver=mlx5_core', 'driver=vfio-pci') }, [VF]);
  t.deepEqual(found(host, 'vf-token'), []);
});

test('a physical function needs the VF token while a virtual function of it is open', (t) => {
  const machine = withVirtual('driver=vfio-pci', 'driver=vfio-pci vfio=vfio3');
  const links = `[bus/pci/devices/${PF}]\nvirtfn0 -> ../${VF}`;
  const diagnose = (file: string) =>
    found(diagnosed(t, { machine, sys: links, top: TOP.replace('-> /dev/kvm', `-> ${file}`) }, [PF]), 'vf-token');
  for (const file of ['/dev/vfio/22', '/dev/vfio/devices/vfio3']) {
    const [finding] = diagnose(file);
    t.is(finding?.state, 'warning');
    t.regex(finding?.text ?? '', /0000:02:00\.1.*VF token/);
  }
  t.deepEqual(diagnose('/dev/null'), []);
  const host = withVirtual('driver=mlx5_core', 'driver=vfio-pci vfio=vfio3');
  const top = TOP.replace('-> /dev/kvm', '-> /dev/vfio/22');
  t.deepEqual(found(diagnosed(t, { machine: host, sys: links, top }, [PF]), 'vf-token'), [], 'not bound to VFIO');
});
