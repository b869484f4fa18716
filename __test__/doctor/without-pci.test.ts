/**
 * Findings without PCI devices, as in a container or a virtual machine without PCI.
 */
import test from 'ava';
import { diagnose } from '../../ts/host.ts';
import { rejectsCode } from '../support/errors.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import { GPU, one } from './support.ts';

for (const [what, tree] of [
  ['no bus of PCI', '[kernel]\nuevent_seqnum = 1'],
  ['a bus of PCI without devices', '[bus/pci]\ndevices/'],
] as const) {
  test(`reports ${what} as a finding, and checks the rest of the machine`, async (t) => {
    const sysfs = expandTree(t, tree);
    for (const devices of [undefined, [GPU]]) {
      const diagnosis = await diagnose({ sysfs, ...(devices && { devices }) });
      t.is(one(diagnosis, 'pci').state, 'blocked');
      t.is(diagnosis.state, 'blocked');
      t.deepEqual(diagnosis.devices, []);
      t.true(diagnosis.machine.some(({ id }) => id === 'iommu'));
    }
    await rejectsCode(t, diagnose({ sysfs, devices: ['gpu'] }), 'ERR_INVALID_ARGUMENT');
  });
}

test('rejects a /sys that is not a folder', async (t) => {
  const root = expandTree(t, 'file = text');
  for (const sysfs of [`${root}/none`, `${root}/file`, `${root}/file/below`, `${root}\0`]) {
    await rejectsCode(t, diagnose({ sysfs }), 'ERR_INVALID_ARGUMENT', JSON.stringify(sysfs));
  }
});
