// A target that fails to unmap. The memory that it may still reach is kept, reported, and blocked until the target is
// closed.
import test from 'ava';
import { AddressRange, PeerDmaError } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { ACCEPT, BatchRecordingTarget, RecordingTarget, RefuseAt } from '../support/recording-target.ts';

const STUCK = new PeerDmaError('ERR_UNMAP_FAILED', 'EINVAL from the fake kernel', {
  errno: 'EINVAL',
  syscall: 'ioctl(UNMAP)',
});

test('a failed unmap quarantines the range until the target is closed', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const file = taggedFile(t, 'file', 2, 0x44);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 2) });
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const first = new RecordingTarget({ name: 'first', needsVa: true });
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
  const last = new RecordingTarget({ name: 'last' });
  await memory.dmaMappers.addDmaMapper(first);
  const handle = await memory.dmaMappers.addDmaMapper(stuck);
  await memory.dmaMappers.addDmaMapper(last);
  const before = memory.inspect();

  stuck.judge = ({ op }) => (op === 'unmap' ? STUCK : undefined);
  const error = await rejectsCode(t, region.unmapFromGuest(), 'ERR_UNMAP_FAILED');
  t.is(error.target, 'stuck');
  t.is(error.errno, 'EINVAL');
  t.is(error.syscall, 'ioctl(UNMAP)');
  t.deepEqual(error.range, pages(4, 2));

  const after = memory.inspect();
  t.deepEqual(after.regions, before.regions);
  t.deepEqual(after.flat, before.flat);
  t.is(after.quarantine.length, 1);
  t.like(after.quarantine[0], { target: 'stuck', start: '0x4000', end: '0x6000', region: 'r', state: 'quarantined' });
  t.like(handle.status()[1], { state: 'quarantined', code: 'ERR_UNMAP_FAILED', errno: 'EINVAL', region: 'r' });
  t.deepEqual(first.heldText(), ['0x0..0x1000 rw ram0', '0x4000..0x6000 rw r'], 'the others have mapped it again');
  t.deepEqual(last.heldText(), ['0x0..0x1000 rw ram0', '0x4000..0x6000 rw r']);
  t.deepEqual(stuck.held()[1]?.hostMemory?.read(0n, 1), Uint8Array.of(0x44), 'the memory is kept');

  stuck.judge = ACCEPT; // too late: its mappings are unknown
  for (const change of [
    () => region.unmapFromGuest(),
    () => region.remove(),
    () => region.mapToGuest({ writable: false }),
    () => region.removeMappings(pages(1, 1)),
    () => region.addMapping({ range: pages(0, 1), backing: 'private' }),
  ]) {
    const refused = await rejectsCode(t, change(), 'ERR_RANGE_QUARANTINED');
    t.is(refused.target, 'stuck');
    t.deepEqual(refused.range, pages(4, 2));
  }
  const elsewhere = await memory.regions.addRegion({ name: 'elsewhere', range: pages(8, 1) });
  await elsewhere.addMapping({ range: pages(0, 1), backing: 'private' });
  await elsewhere.mapToGuest();
  for (const target of [first, stuck, last]) t.true(target.heldText().includes('0x8000..0x9000 rw elsewhere'));

  await memory.dmaMappers.targetClosed(stuck);
  await memory.dmaMappers.targetClosed(stuck);
  t.deepEqual(memory.inspect().quarantine, []);
  t.deepEqual(handle.status(), []);
  t.is(memory.inspect().targets.length, 2);
  await region.unmapFromGuest();
  t.deepEqual(first.heldText(), ['0x0..0x1000 rw ram0', '0x8000..0x9000 rw elsewhere']);
  t.deepEqual([...first.breaches, ...stuck.breaches, ...last.breaches], []);
});

test('releases a quarantined range that the map does not have when its target is closed', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget({ name: 'stuck', needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const keeper = new RecordingTarget({ name: 'keeper', needsVa: true });
  await memory.dmaMappers.addDmaMapper(keeper);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.mapToGuest();
  target.judge = new RefuseAt('unmap', 0).judge;
  keeper.judge = new RefuseAt('map', 0).judge;
  await rejectsCode(t, region.addMapping({ range: pages(0, 1), backing: 'private' }), 'ERR_ROLLBACK_FAILED');
  t.is(memory.inspect().quarantine.length, 1);
  await memory.dmaMappers.targetClosed(target);
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  t.deepEqual(keeper.heldText(), ['0x0..0x1000 rw ram0', '0x4000..0x5000 rw r']);
});

test('if unmapping fails for any range, the others are as before', async (t) => {
  const count = 4;
  for (let k = 0; k < count; k++) {
    const memory = await guest(t);
    const region = await memory.regions.addRegion({ name: 'r', range: pages(0, count * 2) });
    for (let n = 0; n < count; n++) await region.addMapping({ range: pages(n * 2, 1), backing: 'private' });
    await region.mapToGuest();
    const stuck = new RecordingTarget({ name: 'stuck', needsVa: true, async: true });
    const other = new RecordingTarget({ name: 'other', needsVa: true });
    await memory.dmaMappers.addDmaMapper(other);
    const handle = await memory.dmaMappers.addDmaMapper(stuck);
    const held = stuck.heldText();
    stuck.judge = new RefuseAt('unmap', k).judge;
    await rejectsCode(t, region.unmapFromGuest(), 'ERR_UNMAP_FAILED');
    t.deepEqual(stuck.heldText(), held);
    t.deepEqual(other.heldText(), held);
    t.deepEqual(
      handle.status().map(({ state }) => state),
      Array.from({ length: count }, (_, n) => (n === k ? 'quarantined' : 'mapped')),
    );
    t.deepEqual([...stuck.breaches, ...other.breaches], []);
    await memory.dmaMappers.targetClosed(stuck);
    await memory.close();
    t.deepEqual(other.held(), []);
  }
});

test('removing a mapper that fails to unmap reports it and keeps the range', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE },
      { start: at(4), length: PAGE },
      { start: at(8), length: PAGE },
    ],
  });
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(stuck);
  stuck.judge = ({ op, range }) => (op === 'unmap' && range.start === at(4) ? new Error('no') : undefined);
  const error = await rejectsCode(t, handle.remove(), 'ERR_UNMAP_FAILED');
  t.deepEqual(error.range, pages(4, 1));
  t.deepEqual(stuck.heldText(), ['0x4000..0x5000 rw ram1'], 'all else is unmapped');
  t.deepEqual(
    memory.inspect().quarantine.map(({ start }) => start),
    ['0x4000'],
  );
  await memory.dmaMappers.targetClosed(stuck);
  t.deepEqual(memory.inspect().targets, []);
});

test('maps nothing to a removed target that has a range in quarantine', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(stuck);
  stuck.judge = new RefuseAt('unmap', 0).judge;
  await rejectsCode(t, handle.remove(), 'ERR_UNMAP_FAILED');
  stuck.takeCalls();
  const later = await memory.regions.addRegion({ name: 'later', range: pages(8, 1) });
  await later.addMapping({ range: pages(0, 1), backing: 'private' });
  await later.mapToGuest();
  t.deepEqual(stuck.takeCalls(), []);
  await memory.dmaMappers.targetClosed(stuck);
});

for (const Target of [RecordingTarget, BatchRecordingTarget]) {
  test(`a registration without rollback keeps the range, and guest memory closes: ${Target.name}`, async (t) => {
    const memory = await guest(t, {
      ram: [
        { start: 0n, length: PAGE },
        { start: at(4), length: PAGE },
      ],
    });
    const target = new Target({ name: 'stuck', needsVa: true });
    const refusal = new PeerDmaError('ERR_UNMAP_FAILED', 'can not take back what was mapped');
    target.judge = ({ op, range }) => {
      if (Target === BatchRecordingTarget) return refusal;
      return op === 'unmap' || range.start > 0n ? new Error('no') : undefined;
    };
    const code = Target === BatchRecordingTarget ? 'ERR_UNMAP_FAILED' : 'ERR_ROLLBACK_FAILED';
    await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), code);
    t.true(memory.inspect().quarantine.length > 0);
    t.is(memory.inspect().quarantine[0]?.target, 'stuck');

    // The registration returned no handle, but the target's owner must be able to report the target closed.
    target.judge = ACCEPT;
    target.takeCalls();
    const later = await memory.regions.addRegion({ name: 'later', range: pages(8, 1) });
    await later.addMapping({ range: pages(0, 1), backing: 'private' });
    await later.mapToGuest();
    t.deepEqual(target.calls, [], 'a target that is not registered is not called');
    await memory.dmaMappers.targetClosed(target);
    t.deepEqual(memory.inspect().quarantine, []);
  });
}

test('a single map that cannot be undone is in quarantine', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ name: 'stuck' });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ backing: 'private' });
  target.judge = () => new PeerDmaError('ERR_UNMAP_FAILED', 'the other process does not reply');
  await rejectsCode(t, region.mapToGuest(), 'ERR_UNMAP_FAILED');
  t.like(memory.inspect().quarantine, [{ start: '0x4000', end: '0x5000', target: 'stuck' }]);
  await memory.dmaMappers.targetClosed(target);
  t.deepEqual(memory.inspect().quarantine, []);
});

test('private memory in quarantine outlives its window', async (t) => {
  const memory = await guest(t);
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await bar.mapToGuest(at(4));
  memory.write(at(4), Uint8Array.of(0x77));
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
  const other = new RecordingTarget({ name: 'other', needsVa: true });
  await memory.dmaMappers.addDmaMapper(stuck, { peerToPeer: 'required' });
  await memory.dmaMappers.addDmaMapper(other, { peerToPeer: 'required' });
  stuck.judge = new RefuseAt('unmap', 1).judge;
  other.judge = new RefuseAt('map', 0).judge;
  await rejectsCode(t, bar.mapToGuest(at(8)), 'ERR_ROLLBACK_FAILED');
  for (const page of [4, 8, 12]) await rejectsCode(t, bar.mapToGuest(at(page)), 'ERR_RANGE_QUARANTINED');
  await bar.remove();
  const region = await memory.regions.addRegion({ name: 'r', range: pages(8, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await rejectsCode(t, region.mapToGuest(), 'ERR_RANGE_QUARANTINED');
  t.is(stuck.held()[0]?.hostMemory?.read(0n, 1)[0], 0x77, 'no other memory has its pages');

  stuck.closeWithMappings();
  await memory.dmaMappers.targetClosed(stuck);
  await region.mapToGuest();
  t.is(other.held()[0]?.hostMemory?.read(0n, 1)[0], 0);
  t.deepEqual([...stuck.breaches, ...other.breaches], []);
});

for (const order of [
  ['one', 'two'],
  ['two', 'one'],
] as const) {
  for (const before of ['nothing', 'leaving', 'closing guest memory'] as const) {
    test(`releases the quarantine of two targets with the second of them, ${order.join(' before ')}, after ${before}`, async (t) => {
      const memory = await guest(t);
      const file = taggedFile(t, 'file', 2, 0x50);
      const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
      await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
      await region.mapToGuest();
      const [one, two, other] = ['one', 'two', 'other'].map((name) => new RecordingTarget({ name, needsVa: true })) as [
        RecordingTarget,
        RecordingTarget,
        RecordingTarget,
      ];
      const handles = {
        one: await memory.dmaMappers.addDmaMapper(one),
        two: await memory.dmaMappers.addDmaMapper(two),
      };
      await memory.dmaMappers.addDmaMapper(other);
      for (const target of [one, two]) target.judge = new RefuseAt('unmap', 1).judge;
      other.judge = new RefuseAt('map', 0).judge;
      const change = region.addMapping({ range: pages(0, 1), backing: { file, offset: PAGE } });
      await rejectsCode(t, change, 'ERR_ROLLBACK_FAILED');
      file.close();
      if (before === 'leaving') {
        for (const name of order) await rejectsCode(t, handles[name].remove(), 'ERR_UNMAP_FAILED');
      }
      if (before === 'closing guest memory') await rejectsCode(t, memory.close(), 'ERR_UNMAP_FAILED');

      const [first, last] = order[0] === 'one' ? [one, two] : [two, one];
      first.closeWithMappings();
      await memory.dmaMappers.targetClosed(first);
      t.is(last.held()[0]?.hostMemory?.read(0n, 1)[0], 0x51, 'the other one still keeps it');
      t.deepEqual(other.held(), []);
      last.closeWithMappings();
      await memory.dmaMappers.targetClosed(last);
      const restored = other.held().map(({ hostMemory }) => hostMemory?.read(0n, 1)[0]);
      t.deepEqual(restored, before === 'closing guest memory' ? [] : [0x50]);
      t.deepEqual([...one.breaches, ...two.breaches, ...other.breaches], []);
    });
  }
}

test('private memory that a quarantine keeps elsewhere returns to its address when the target is closed', async (t) => {
  const memory = await guest(t);
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await bar.mapToGuest(at(4));
  memory.write(at(4), Uint8Array.of(0x77));
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
  const other = new RecordingTarget({ name: 'other', needsVa: true });
  await memory.dmaMappers.addDmaMapper(stuck, { peerToPeer: 'required' });
  await memory.dmaMappers.addDmaMapper(other, { peerToPeer: 'required' });
  stuck.judge = new RefuseAt('unmap', 1).judge;
  other.judge = new RefuseAt('map', 0).judge;
  await rejectsCode(t, bar.mapToGuest(at(8)), 'ERR_ROLLBACK_FAILED');
  t.deepEqual(other.held(), [], 'the memory can be at one place only');

  stuck.closeWithMappings();
  await memory.dmaMappers.targetClosed(stuck);
  t.deepEqual(other.heldText(), ['0x4000..0x5000 rw bar']);
  t.is(other.held()[0]?.hostMemory?.read(0n, 1)[0], 0x77);
});

test('releases the quarantines of old and new memory, each with its own target', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 2, 0x50);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const keepsNew = new RecordingTarget({ name: 'keeps new', needsVa: true });
  const keepsOld = new RecordingTarget({ name: 'keeps old' });
  const other = new RecordingTarget({ name: 'other', needsVa: true });
  await memory.dmaMappers.addDmaMapper(keepsNew);
  const handle = await memory.dmaMappers.addDmaMapper(keepsOld);
  await memory.dmaMappers.addDmaMapper(other);
  keepsNew.judge = new RefuseAt('unmap', 1).judge;
  other.judge = new RefuseAt('map', 0).judge;
  const change = region.addMapping({ range: pages(0, 1), backing: { file, offset: PAGE } });
  await rejectsCode(t, change, 'ERR_ROLLBACK_FAILED');
  t.deepEqual(keepsOld.heldText(), ['0x4000..0x5000 rw r'], 'it needs no host memory, and so has mapped it again');
  keepsOld.judge = new RefuseAt('unmap', 0).judge;
  await rejectsCode(t, handle.remove(), 'ERR_UNMAP_FAILED');
  t.is(memory.inspect().quarantine.length, 2);

  keepsNew.closeWithMappings();
  await memory.dmaMappers.targetClosed(keepsNew);
  t.is(other.held()[0]?.hostMemory?.read(0n, 1)[0], 0x50);
  await rejectsCode(t, region.unmapFromGuest(), 'ERR_RANGE_QUARANTINED');
  keepsOld.closeWithMappings();
  await memory.dmaMappers.targetClosed(keepsOld);
  await region.unmapFromGuest();
  t.deepEqual([...keepsNew.breaches, ...keepsOld.breaches, ...other.breaches], []);
});

test('a quarantine of private memory keeps those pages, and not the rest of the same memory', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 1, 1);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 2) });
  await region.addMapping({ range: pages(0, 2), backing: 'private' });
  await region.mapToGuest();
  const rom = await memory.regions.addRegion({ name: 'rom', range: pages(5, 1), priority: 200 });
  await rom.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await rom.mapToGuest();
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
  await memory.dmaMappers.addDmaMapper(stuck);
  stuck.judge = new RefuseAt('unmap', 0).judge;
  await rejectsCode(t, region.unmapFromGuest(), 'ERR_UNMAP_FAILED');
  await rom.unmapFromGuest();
  t.deepEqual(stuck.heldText(), ['0x4000..0x5000 rw r', '0x5000..0x6000 rw r']);
  await memory.dmaMappers.targetClosed(stuck);
});
