/**
 * Checks and warnings of bind before it changes a driver.
 */
import test from 'ava';
import type { HostMachine } from '../../../ts/host.ts';
import { planBind, planUnbind } from '../../../ts/host/binding/plan.ts';
import { checkPlan } from '../../../ts/host/binding/check-plan.ts';
import { at } from '../support.ts';
import { machineOf } from '../use/support.ts';

test('bind notes that a device with a 1:1 mapping of the firmware cannot be assigned', (t) => {
  const pci = `
reserved 1 0x00000000000e8000 0x00000000000e8fff direct
reserved 2 0x00000000000e8000 0x00000000000e8fff direct-relaxable
host 0000:00
  04.0 1b36:0010 endpoint class=010802 group=1 driver=nvme
  05.0 1b36:0010 endpoint class=010802 group=2 driver=nvme
  06.0 1b36:0010 endpoint class=010802 group=1 driver=vfio-pci
`;
  const machine = machineOf(t, { pci });
  const notes = (plan: typeof planUnbind, address: string): string[] =>
    checkPlan(machine, plan([at(machine.host, address)]), false);
  const bind = (devices: Parameters<typeof planUnbind>[0]) => planBind(devices, undefined, () => true);
  t.regex(
    notes(bind, '00:04.0').join(),
    /^0000:00:04\.0 is in IOMMU group 1, for which the firmware demands a 1:1 mapping/,
  );
  t.deepEqual(notes(bind, '00:05.0'), []);
  t.deepEqual(notes(planUnbind, '00:06.0'), []);
});

test('bind notes how the running kernel treats a 1:1 mapping', (t) => {
  const pci = `
iommu dmar0 intel 48
iommu ivhd0 amd
reserved 1 0x00000000000e8000 0x00000000000e8fff direct
reserved 2 0x00000000000e8000 0x00000000000e8fff direct
host 0000:00 iommu=dmar0
  04.0 1b36:0010 endpoint class=010802 group=1 driver=nvme
host 0000:40 iommu=ivhd0
  04.0 1b36:0010 endpoint class=010802 group=2 driver=nvme
`;
  const machine = machineOf(t, { pci });
  const note = (address: string, kernel: HostMachine['kernel']): string => {
    const plan = planBind([at(machine.host, address)], undefined, () => true);
    return checkPlan({ ...machine, host: { ...machine.host, kernel } }, plan, false).join();
  };
  const refused = /, so the kernel does not give it to VFIO\. Update the firmware/;
  for (const kernel of [{ major: 6, minor: 1 }, { major: 6, minor: 12 }, 'unknown'] as const) {
    t.regex(note('00:04.0', kernel), refused, 'Intel');
  }
  t.regex(note('40:04.0', { major: 6, minor: 6 }), refused);
  const old = note('40:04.0', { major: 6, minor: 5 });
  t.regex(old, /, which is missing while VFIO has the device: Linux 6\.6 and later keep it from VFIO$/);
  t.regex(note('40:04.0', 'unknown'), /: Linux 6\.6 and later keep it from VFIO\. Update the firmware/);
});
