/**
 * A platform whose IOMMU can't remap interrupts. Run on its own, in a guest made for it.
 */
import { PeerDmaError } from '../../ts/index.ts';
import { testWith } from './support/devices.ts';
import { rig } from './support/rig.ts';

testWith(
  { any: 1 },
  'without interrupt remapping a device is refused, with what to do about it',
  async (t, { any: [bdf = ''] }) => {
    const { memory, manager, open } = await rig(t);
    const error = await t.throwsAsync(open(bdf), { instanceOf: PeerDmaError, code: 'ERR_NO_INTERRUPT_REMAPPING' });
    t.is(error?.errno, 'EPERM');
    t.is(error?.device, bdf);
    t.regex(error?.message ?? '', /allow_unsafe_interrupts=1/);
    t.deepEqual([manager.inspect().containers, memory.inspect().targets], [[], []]);
  },
);
