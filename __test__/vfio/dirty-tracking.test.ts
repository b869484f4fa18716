/**
 * Dirty pages, as far as the IOMMU of the testbed can report them.
 */
import { AddressRange, PeerDmaError } from '../../ts/index.ts';
import { BACKEND, newManager } from './support/backend.ts';
import { testWith } from './support/devices.ts';
import { RAM_LENGTH, RAM_START, SINK, pattern, rig, send } from './support/rig.ts';

const PAGE = 4096n;
const RAM = AddressRange.of(RAM_START, RAM_LENGTH);

if (BACKEND === 'type1') {
  testWith({ edu: 2 }, 'type1 reports all writable memory as dirty', async (t, { edu: [bdf = '', later = ''] }) => {
    const { memory, manager, open, edu: openEdu } = await rig(t);
    const edu = await openEdu(bdf);
    await t.throwsAsync(newManager(memory).startDirtyTracking(), {
      instanceOf: PeerDmaError,
      code: 'ERR_UNSUPPORTED',
    });
    const tracking = await manager.startDirtyTracking();
    await t.throwsAsync(manager.startDirtyTracking(), { instanceOf: PeerDmaError, code: 'ERR_INVALID_ARGUMENT' });
    await send(memory, edu, pattern(1), SINK);
    const all = await tracking.readDirty(RAM);
    t.is(all.pageSize, PAGE);
    t.true(all.contains(SINK), 'the written page is among them');
    t.is(BigInt(all.count) * PAGE, RAM_LENGTH);
    t.deepEqual([...all.ranges()].map(String), [String(RAM)]);

    const part = await tracking.readDirty(AddressRange.of(SINK, 2n * PAGE));
    t.is(part.count, 2, 'a part of a mapping');
    t.is((await tracking.readDirty(AddressRange.of(0x8000_0000n, PAGE))).count, 0, 'nothing is mapped there');
    await t.throwsAsync(tracking.readDirty(AddressRange.of(SINK + 1n, PAGE)), { code: 'ERR_UNALIGNED' });

    const apart = newManager(memory);
    t.teardown(() => apart.close());
    await open(later);
    t.is((await tracking.readDirty(RAM)).count, all.count, 'a device that opens later does not disturb the log');
    await tracking.stop();
    await tracking.stop();
    await t.throwsAsync(tracking.readDirty(RAM), { code: 'ERR_CLOSED' });
    const again = await manager.startDirtyTracking();
    t.is((await again.readDirty(RAM)).count, all.count);
    await manager.close();
    await again.stop();
  });
} else {
  testWith({ edu: 1 }, 'an IOMMU that does not log is rejected', async (t, { edu: [bdf = ''] }) => {
    const { manager, open } = await rig(t);
    await open(bdf);
    const error = await t.throwsAsync(manager.startDirtyTracking(), { instanceOf: PeerDmaError });
    t.is(error?.code, 'ERR_UNSUPPORTED');
    t.regex(error?.message ?? '', /does not support dirty-page logging/);
    await t.throwsAsync(manager.startDirtyTracking(), { code: 'ERR_UNSUPPORTED' }, 'and again at the second call');
  });
}
