/**
 * IOMMU groups with devices that are not PCI functions. They are listed by name, and block the group if the host uses
 * them.
 */
import test from 'ava';
import { topologyJson } from '../../ts/cli/topology/json.ts';
import { planBind } from '../../ts/host/binding/plan.ts';
import { checkPlan } from '../../ts/host/binding/check-plan.ts';
import { peerMatrix, readHost } from '../../ts/host.ts';
import { deviceFileRefused, notViable } from '../../ts/vfio/opening-errors.ts';
import { PeerDmaError } from '../../ts/index.ts';
import { Sysfs } from '../../ts/vfio/sysfs.ts';
import { NIC, SYS, diagnosed, one } from '../doctor/support.ts';
import { describeMachine } from '../support/sysfs/describe.ts';
import { throwsCode } from '../support/errors.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import { at, codes } from './support.ts';
import { machineOf } from './use/support.ts';

const PCI = `
host 0000:00
  04.0 1b36:0010 endpoint class=010802 group=3 driver=vfio-pci bar0=mem64:64K@0x90000000
  05.0 1b36:0010 endpoint class=010802 group=4 driver=vfio-pci bar0=mem64:64K@0x90010000
`;
/** Two members of group 3 as /sys links them, the second with a driver. */
const OTHERS = `[kernel/iommu_groups/3/devices]
ACPI0004:00 -> ../../../../devices/platform/ACPI0004:00
fe300000.usb -> ../../../../devices/platform/fe300000.usb
[devices/platform/ACPI0004:00]
uevent =
[devices/platform/fe300000.usb]
driver -> ../../../bus/platform/drivers/xhci-hcd
`;

const NAMED = [
  { name: 'ACPI0004:00', driver: undefined },
  { name: 'fe300000.usb', driver: 'xhci-hcd' },
];

test('a host lists the members of a group that are not PCI functions separately, with their drivers', (t) => {
  const host = readHost(expandTree(t, `${describeMachine(PCI)}\n${OTHERS}`));
  t.deepEqual(host.findings, []);
  t.like(host.groups.get(3), { members: ['0000:00:04.0'], others: NAMED });
  t.deepEqual(host.groups.get(4)?.others, []);
  t.like(topologyJson(host, peerMatrix(host, [])), { groups: [{ number: 3, others: NAMED }, { number: 4 }] });
});

test('a group of platform devices alone has no PCI members', (t) => {
  const host = readHost(expandTree(t, `${describeMachine(PCI)}\n${OTHERS.replaceAll('groups/3', 'groups/9')}`));
  t.like(host.groups.get(9), { members: [], others: NAMED });
  t.deepEqual(host.findings, []);
});

test('a function without a link to its group belongs to the group that lists it', (t) => {
  const tree = describeMachine(PCI).replaceAll(/^iommu_group -> .*\n/gm, '');
  const host = readHost(expandTree(t, tree));
  t.is(at(host, '00:04.0').group, 3);
  t.deepEqual(host.groups.get(3)?.members, ['0000:00:04.0']);
  t.deepEqual(host.findings, []);
});

test('a matrix names a member that is not a PCI function and that the host uses', (t) => {
  const host = readHost(expandTree(t, `${describeMachine(PCI)}\n${OTHERS}`));
  const [cell] = peerMatrix(host, ['0000:00:04.0', '0000:00:05.0']).cells;
  t.deepEqual(codes(cell?.prerequisites ?? []), ['group-not-viable']);
  t.regex(cell?.prerequisites[0]?.text ?? '', /group 3 .* the host uses fe300000\.usb \(xhci-hcd\) of it/);
});

test('opening a device names the members of its group that are not PCI functions', (t) => {
  const sysfs = new Sysfs(expandTree(t, `${describeMachine(PCI)}\n${OTHERS}`));
  const group = sysfs.group(3);
  t.deepEqual(
    group.map(({ bdf, driver }) => [bdf, driver]),
    [
      ['0000:00:04.0', 'vfio-pci'],
      ['ACPI0004:00', undefined],
      ['fe300000.usb', 'xhci-hcd'],
    ],
  );
  const { message } = notViable('0000:00:04.0', 3, group);
  t.regex(message, /: fe300000\.usb \(driver xhci-hcd; not a PCI device, so it can only be unbound\)\. /);
  t.notRegex(message, /ACPI0004/);
});

test('lists a group that was removed, and a member whose PCI function was removed, as far as they exist', (t) => {
  const sysfs = new Sysfs(
    expandTree(t, `${describeMachine(PCI)}\n[kernel/iommu_groups/3/devices]\n0000:00:06.0 -> ../gone`),
  );
  t.deepEqual(sysfs.group(77), []);
  t.deepEqual(
    sysfs.group(3).map(({ bdf }) => bdf),
    ['0000:00:04.0', '0000:00:06.0'],
  );
});

test('a device that is not a PCI function is not reported as open in another process', (t) => {
  const unused = OTHERS.replace(/^driver.*$/m, 'uevent =');
  const group = new Sysfs(expandTree(t, `${describeMachine(PCI)}\n${unused}`)).group(3);
  const refused = new PeerDmaError('ERR_DEVICE_OPEN', 'refused', {
    errno: 'EPERM',
    syscall: 'ioctl(VFIO_DEVICE_BIND_IOMMUFD)',
  });
  const { message } = deviceFileRefused('0000:00:04.0', 0, refused, 3, group);
  t.notRegex(message, /another process|ACPI0004|fe300000/);
});

test('the doctor names members that are not PCI functions, and suggests no command without effect', (t) => {
  const sys = `${SYS}\n${OTHERS.replaceAll('groups/3', 'groups/20')}`;
  const diagnosis = diagnosed(t, { sys });
  t.is(one(diagnosis, 'group').text, 'IOMMU group 20, with ACPI0004:00 (no driver), fe300000.usb (xhci-hcd)');
  const viable = one(diagnosis, 'group-viable');
  t.like(viable, { state: 'blocked', code: 'ERR_GROUP_NOT_VIABLE', fix: undefined });
  t.regex(viable.text, /fe300000\.usb \(driver xhci-hcd; not a PCI device, so it can only be unbound\)/);
  const unbound = diagnosed(t, { sys: sys.replaceAll('groups/20', 'groups/21') }, [NIC]);
  t.is(one(unbound, 'driver').fix, `sudo npx peerdma bind ${NIC}`);
});

test('bind notes members that are not PCI functions and that the host uses', (t) => {
  const pci = PCI.replace('group=3 driver=vfio-pci', 'group=3 driver=nvme');
  const machine = machineOf(t, { pci, rest: OTHERS.replaceAll(/^\[/gm, '[sys/') });
  const plan = planBind([at(machine.host, '00:04.0')], undefined, () => true);
  t.regex(
    checkPlan(machine, plan, false).join(),
    /^IOMMU group 3 .* also has fe300000\.usb \(driver xhci-hcd\): unbind devices that are not PCI functions by hand$/,
  );
});

test('a link of a device to another folder is not a group', (t) => {
  const folder = '[bus/pci/devices/0000:00:04.0]';
  const sysfs = new Sysfs(expandTree(t, `${folder}\niommu_group -> ../../../kernel/iommu_groups/all`));
  t.is(sysfs.device('0000:00:04.0').iommuGroup, undefined);
});

test('the error for the host addresses of a removed device states that they are missing', (t) => {
  const sysfs = new Sysfs(expandTree(t, '[bus/pci/devices]\nempty/'));
  throwsCode(t, () => sysfs.hostAddresses('0000:00:04.0'), 'ERR_DEVICE_NOT_FOUND');
});
