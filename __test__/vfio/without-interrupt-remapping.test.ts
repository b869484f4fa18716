/**
 * A platform whose IOMMU cannot remap interrupts. Runs in a guest of its own.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { GuestMemory, PeerDmaError, VfioContainerManager } from '../../ts/index.ts';
import { diagnose } from '../../ts/host.ts';
import { rejectsCode } from '../support/errors.ts';
import { testWith } from './support/devices.ts';
import { rig } from './support/rig.ts';

testWith(
  { any: 1 },
  'without interrupt remapping a device is rejected, and the error has the remedy',
  async (t, { any: [bdf = ''] }) => {
    const { memory, manager, open } = await rig(t);
    const error = await t.throwsAsync(open(bdf), { instanceOf: PeerDmaError, code: 'ERR_NO_INTERRUPT_REMAPPING' });
    t.is(error?.errno, 'EPERM');
    t.is(error?.bdf, bdf);
    t.regex(error?.message ?? '', /allow_unsafe_interrupts=1/);
    t.deepEqual([manager.inspect().containers, memory.inspect().targets], [[], []]);
  },
);

testWith(
  { any: 1 },
  'the doctor reports it, and the back end that opens devices once the risk is accepted',
  async (t, { any: [bdf = ''] }) => {
    const told = async () => {
      const { machine, devices } = await diagnose({ devices: [bdf] });
      const remapping = machine.find(({ id }) => id === 'interrupt-remapping');
      const backend = devices[0]?.findings.find(({ id }) => id === 'backend');
      return { remapping, backend };
    };
    await using memory = await GuestMemory.create();
    await using refused = new VfioContainerManager(memory);
    const before = await told();
    t.like(before.remapping, { state: 'blocked', code: 'ERR_NO_INTERRUPT_REMAPPING' });
    t.like(before.backend, { state: 'blocked', code: 'ERR_NO_INTERRUPT_REMAPPING' });
    await rejectsCode(t, refused.open(bdf), 'ERR_NO_INTERRUPT_REMAPPING');

    for (const [backend, module] of [
      ['type1', 'vfio_iommu_type1'],
      ['iommufd', 'iommufd'],
    ] as const) {
      const parameter = `/sys/module/${module}/parameters/allow_unsafe_interrupts`;
      if (!existsSync(parameter)) continue;
      writeFileSync(parameter, 'Y');
      t.teardown(() => writeFileSync(parameter, 'N'));
      const after = await told();
      t.is(after.remapping?.state, 'warning');
      t.is(after.backend?.text, `opened by ${backend}`);
      await using manager = new VfioContainerManager(memory);
      await manager.open(bdf);
      t.is(manager.inspect().backend, backend);
    }
  },
);
