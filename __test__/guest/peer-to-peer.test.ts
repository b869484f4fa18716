// Device memory that a target cannot map: recorded, required, or never mapped.
import test from 'ava';
import { AddressRange, type DeviceMemory, type GuestMemory, PeerDmaError } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, taggedFile } from '../support/pages.ts';
import { ACCEPT, BatchRecordingTarget, type Call, RecordingTarget, RefuseAt } from '../support/recording-target.ts';

/** Fails to map device memory, like an IOMMU that cannot reach it. */
function refuseBars({ op, request }: Call): unknown {
  if (op !== 'map' || request?.kind !== 'device') return undefined;
  return new PeerDmaError('ERR_IOVA_UNREACHABLE', 'out of reach', { errno: 'EINVAL', syscall: 'ioctl' });
}

async function withBar(memory: GuestMemory): Promise<DeviceMemory> {
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(2) });
  await bar.addMapping({ range: AddressRange.of(0n, at(2)), backing: 'private' });
  return bar;
}

test('a change succeeds without a BAR that cannot be mapped, and status has the reason', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget({ name: 'vfio', needsVa: true });
  target.judge = refuseBars;
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const other = new RecordingTarget({ name: 'other', needsVa: true });
  await memory.dmaMappers.addDmaMapper(other);
  const bar = await withBar(memory);
  await bar.mapToGuest(at(8));

  t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0']);
  t.deepEqual(other.heldText(), ['0x0..0x1000 rw ram0', '0x8000..0xa000 rw bar']);
  const [ram, failed] = handle.status();
  t.like(ram, { state: 'mapped', kind: 'ram', region: 'ram0' });
  t.like(failed, { state: 'failed', kind: 'device', region: 'bar', code: 'ERR_IOVA_UNREACHABLE', errno: 'EINVAL' });
  t.is(String(failed?.range), '0x8000..0xa000');
  t.regex(failed?.reason ?? '', /vfio.*bar.*0x8000\.\.0xa000.*out of reach/);
  const [inspected] = memory.inspect().targets;
  t.like(inspected?.mappings[1], {
    start: '0x8000',
    end: '0xa000',
    region: 'bar',
    state: 'failed',
    code: 'ERR_IOVA_UNREACHABLE',
    errno: 'EINVAL',
    reason: failed?.reason ?? '',
  });

  target.takeCalls();
  await bar.unmapFromGuest();
  t.deepEqual(target.takeCalls(), [], 'memory that was never mapped is not unmapped');
  t.is(handle.status().length, 1);
  target.judge = ACCEPT;
  await bar.mapToGuest(at(8));
  t.is(handle.status()[1]?.state, 'mapped', 'the next placement retries');
  t.deepEqual(target.breaches, []);
});

for (const Target of [RecordingTarget, BatchRecordingTarget]) {
  test(`a BAR that cannot be mapped does not affect a registration: ${Target.name}`, async (t) => {
    const memory = await guest(t, {
      ram: [
        { start: 0n, length: PAGE },
        { start: at(16), length: PAGE },
      ],
    });
    await (await withBar(memory)).mapToGuest(at(8));
    const target = new Target({ needsVa: true });
    target.judge = refuseBars;
    const handle = await memory.dmaMappers.addDmaMapper(target);
    t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0', '0x10000..0x11000 rw ram1']);
    t.deepEqual(
      handle.status().map(({ state }) => state),
      ['mapped', 'failed', 'mapped'],
    );
    t.deepEqual(target.breaches, []);
  });
}

test('RAM that cannot be mapped is an error even after a BAR that was skipped', async (t) => {
  const memory = await guest(t, { ram: [{ start: at(16), length: PAGE }] });
  await (await withBar(memory)).mapToGuest(at(8));
  const target = new RecordingTarget({ needsVa: true });
  target.judge = ({ op }) => (op === 'map' ? new Error('refused') : undefined);
  const error = await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_MAP_FAILED');
  t.is(String(error.range), '0x10000..0x11000');
  t.deepEqual(target.held(), []);
  t.deepEqual(memory.inspect().targets, []);
});

test('peerToPeer required makes the BAR an error', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const bar = await withBar(memory);
  const target = new RecordingTarget({ needsVa: true });
  target.judge = refuseBars;
  const handle = await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
  const before = memory.inspect();
  const error = await rejectsCode(t, bar.mapToGuest(at(8)), 'ERR_IOVA_UNREACHABLE');
  t.is(error.errno, 'EINVAL');
  t.deepEqual(memory.inspect(), before);
  await handle.remove();

  target.judge = ACCEPT;
  await bar.mapToGuest(at(8));
  target.judge = refuseBars;
  const registering = memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
  await rejectsCode(t, registering, 'ERR_IOVA_UNREACHABLE');
  t.deepEqual(target.held(), []);
});

test('peerToPeer off skips device memory, and the target is not called', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const bar = await withBar(memory);
  await bar.mapToGuest(at(8));
  const target = new RecordingTarget({ needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'off' });
  t.deepEqual(target.calls, ['map 0x0..0x1000 rw']);
  t.like(handle.status()[1], { state: 'skipped', region: 'bar' });
  t.is(handle.status()[1]?.code, undefined);
  t.is(memory.inspect().targets[0]?.mappings[1]?.state, 'skipped');

  await bar.mapToGuest(at(4));
  await bar.unmapFromGuest();
  t.deepEqual(target.calls, ['map 0x0..0x1000 rw']);
  t.is(handle.status().length, 1);
});

test('rejects an unknown policy', async (t) => {
  const memory = await guest(t);
  const peerToPeer = 'maybe' as 'off';
  await rejectsCode(t, memory.dmaMappers.addDmaMapper(new RecordingTarget(), { peerToPeer }), 'ERR_INVALID_ARGUMENT');
});

test('the reason for a skipped BAR survives a failed change, and the rollback does not map it', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'bar', 1, 1);
  const picky = new RecordingTarget({ name: 'picky', needsVa: true });
  const strict = new RecordingTarget({ name: 'strict', needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(picky);
  await memory.dmaMappers.addDmaMapper(strict, { peerToPeer: 'required' });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
  const off = new PeerDmaError('ERR_BAR_DISABLED', 'decode is off', { errno: 'EFAULT' });
  picky.judge = ({ op }) => (op === 'map' ? off : undefined);
  await bar.mapToGuest(at(4));
  const before = handle.status();
  t.like(before[0], { state: 'failed', code: 'ERR_BAR_DISABLED', errno: 'EFAULT' });
  picky.takeCalls();
  strict.judge = new RefuseAt('map', 0).judge;
  await rejectsCode(t, bar.mapToGuest(at(8)), 'ERR_MAP_FAILED');
  t.deepEqual(handle.status(), before);
  t.deepEqual(picky.takeCalls(), ['map 0x8000..0x9000 rw refused']);
});
