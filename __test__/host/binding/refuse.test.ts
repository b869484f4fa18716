/**
 * What bind says before it changes a driver.
 */
import test from 'ava';
import { planBind, planUnbind } from '../../../ts/host/binding/plan.ts';
import { checkPlan } from '../../../ts/host/binding/refuse.ts';
import { at } from '../support.ts';
import { machineOf } from '../use/support.ts';

test('bind notes that a device can not be assigned for which the firmware demands a 1:1 mapping', (t) => {
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
