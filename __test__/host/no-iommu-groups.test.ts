/**
 * Groups that VFIO makes without an IOMMU (`vfio.enable_unsafe_noiommu_mode`).
 */
import test, { type ExecutionContext } from 'ava';
import { diagnosisOf } from '../../ts/doctor/diagnose.ts';
import { peerMatrix, readHost } from '../../ts/host.ts';
import { checkPlan } from '../../ts/host/binding/check-plan.ts';
import { chosenDevices, planBind, planUnbind } from '../../ts/host/binding/plan.ts';
import { Sysfs, groupOf } from '../../ts/vfio/sysfs.ts';
import { type Wishes, found, factsOf, one } from '../doctor/support.ts';
import { throwsCode } from '../support/errors.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import { at } from './support.ts';
import { machineOf } from './use/support.ts';

const PCI = `
host 0000:00
  04.0 8086:1572 integrated-endpoint class=020000 driver=vfio-pci group=0 bar0=mem32:64K@0xfebd0000
  05.0 8086:1572 integrated-endpoint class=020000 driver=vfio-pci group=1 bar0=mem32:64K@0xfebe0000
`;
const NAMES = '[kernel/iommu_groups]\n0/name = vfio-noiommu\n1/name = vfio-noiommu\n';
const [FIRST, SECOND] = ['0000:00:04.0', '0000:00:05.0'] as const;

const rootOf = (t: ExecutionContext): string => expandTree(t, `${describeMachine(PCI)}\n${NAMES}`);

test('a no-IOMMU group is not a group', (t) => {
  const host = readHost(rootOf(t));
  t.is(host.groups.size, 0);
  t.like(at(host, '00:04.0'), { group: undefined, noIommuGroup: 0 });
  t.deepEqual(host.findings, []);
  const [cell] = peerMatrix(host, [FIRST, SECOND]).cells;
  t.true(cell?.prerequisites.some(({ code }) => code === 'no-iommu'));
});

test('keeps the groups of an IOMMU beside a no-IOMMU group', (t) => {
  const host = readHost(
    expandTree(t, `${describeMachine(PCI)}\n${NAMES.replace('1/name = vfio-noiommu', '1/name =')}`),
  );
  t.deepEqual([...host.groups.keys()], [1]);
  t.like(at(host, '00:05.0'), { group: 1, noIommuGroup: undefined });
});

test('a group of mediated devices alone is not a group of an IOMMU', (t) => {
  const group = (number: number, ...members: readonly string[]): string =>
    [`[kernel/iommu_groups/${number}/devices]`, ...members.map((name) => `${name} -> ../../../../x/${name}`)].join(
      '\n',
    );
  const mediated = group(7, '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001');
  const pci = describeMachine(PCI.replaceAll(/ group=\d/g, ''));
  t.is(readHost(expandTree(t, `${pci}\n${mediated}`)).groups.size, 0);

  const mixed = [mediated, group(8, '0000:00:04.0', 'fd5d0000.smmu'), group(9, 'fd5e0000.dma')].join('\n');
  const host = readHost(expandTree(t, `${pci}\n${mixed}`));
  t.deepEqual(
    [...host.groups.values()].map(({ number, members }) => [number, members]),
    [
      [8, ['0000:00:04.0']],
      [9, []],
    ],
    'platform devices are behind an IOMMU, but are not PCI functions',
  );
});

test('the doctor reports that no IOMMU is on, and that the device cannot be opened', (t) => {
  const wishes: Wishes = { machine: PCI, sys: NAMES, top: '[proc]\nversion = 6' };
  const diagnosis = diagnosisOf(factsOf(t, wishes), [FIRST]);
  const iommu = one(diagnosis, 'iommu');
  t.like(iommu, { state: 'blocked', code: 'ERR_NO_IOMMU_GROUP' });
  t.regex(iommu.evidence, /only groups without an IOMMU.*0, 1/);
  const group = one(diagnosis, 'group');
  t.like(group, { state: 'blocked', code: 'ERR_NO_IOMMU_GROUP' });
  t.regex(group.evidence, /iommu_group: 0, whose name is vfio-noiommu/);
  t.deepEqual(found(diagnosis, 'backend'), []);
});

test('opening a device in a no-IOMMU group fails like without a group', (t) => {
  t.is(new Sysfs(rootOf(t)).device(FIRST).iommuGroup, undefined);
});

test('bind refuses a device without an IOMMU; unbind refuses one that a process has open', (t) => {
  const rest = `${NAMES.replace('[', '[sys/')}[proc/900]\ncomm = testpmd\nfd/3 -> /dev/vfio/noiommu-0\n`;
  const machine = machineOf(t, { pci: PCI.replace('driver=vfio-pci group=1', 'driver=i40e group=1'), rest });
  const devices = (address: string) => [at(machine.host, address)];
  throwsCode(
    t,
    () =>
      checkPlan(
        machine,
        planBind(devices('00:05.0'), undefined, () => true),
        false,
      ),
    'ERR_NO_IOMMU_GROUP',
  );
  t.deepEqual(chosenDevices(machine.host, ['00:04.0'], true), devices('00:04.0'), 'alone in its group');
  const error = throwsCode(t, () => checkPlan(machine, planUnbind(devices('00:04.0')), true), 'ERR_DEVICE_IN_USE');
  t.regex(error.message, /testpmd \(process 900\)/);
});

test('if the IOMMU is on and leaves one device out, the remedy is not to turn it on', (t) => {
  const pci = `
host 0000:00
  02.0 8086:9a49 integrated-endpoint class=030000 driver=i915
  04.0 8086:1572 integrated-endpoint class=020000 driver=vfio-pci group=4 bar0=mem32:64K@0xfebd0000
`;
  const leftOut = /^0000:00:02\.0 is in no IOMMU group, though the IOMMU is on: .*igfx_off/;
  const machine = machineOf(t, { pci });
  const { host } = machine;
  const [cell] = peerMatrix(host, ['0000:00:02.0', '0000:00:04.0']).cells;
  t.regex(cell?.prerequisites.find(({ code }) => code === 'no-iommu')?.text ?? '', leftOut, 'topology');
  const refusals = {
    bind: () =>
      checkPlan(
        machine,
        planBind([at(host, '00:02.0')], undefined, () => true),
        true,
      ),
    'bind --group': () => chosenDevices(host, ['00:02.0'], true),
    opening: () => groupOf(new Sysfs(host.root).device('00:02.0')),
  };
  for (const [what, refused] of Object.entries(refusals)) {
    t.regex(throwsCode(t, refused, 'ERR_NO_IOMMU_GROUP').message, leftOut, what);
  }
  const without = readHost(rootOf(t));
  t.regex(
    throwsCode(t, () => groupOf(new Sysfs(without.root).device(FIRST)), 'ERR_NO_IOMMU_GROUP').message,
    /no IOMMU protects memory from it: turn on the IOMMU/,
    'groups that VFIO made are not evidence of an IOMMU',
  );
});
