/**
 * What a target could not map is mapped when the same change is asked for again: a call that succeeds has done its work.
 */
import test from 'ava';
import { AddressRange, SimulatedIommu } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { PAGE, at, guest, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

test('a BAR that failed is mapped by the same call once the cause is gone', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'bar', 1, 0x10);
  const target = new RecordingTarget({ needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  const contents = { range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } };
  await bar.addMapping(contents);
  target.judge = () => new Error('decode is off');
  await bar.mapToGuest(at(4));
  t.is(handle.status()[0]?.state, 'failed');
  await bar.mapToGuest(at(4));
  t.is(handle.status()[0]?.state, 'failed', 'the cause is still there');

  target.judge = () => undefined;
  await bar.mapToGuest(at(4));
  t.is(handle.status()[0]?.state, 'mapped');
  t.deepEqual(target.heldText(), ['0x4000..0x5000 rw bar']);
});

test('RAM that could not be restored is mapped by the next change there, which fails as long as it can not be', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 2, 0x20);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const [first, second] = [new RecordingTarget({ name: 'first' }), new RecordingTarget({ name: 'second' })];
  const handle = await memory.dmaMappers.addDmaMapper(first);
  await memory.dmaMappers.addDmaMapper(second);
  first.judge = ({ op }) => (op === 'map' ? new Error('no room') : undefined);
  await rejectsCode(
    t,
    region.addMapping({ range: pages(0, 1), backing: { file, offset: PAGE } }),
    'ERR_ROLLBACK_FAILED',
  );
  t.is(handle.status()[0]?.state, 'failed');
  const again = await rejectsCode(t, region.mapToGuest(), 'ERR_MAP_FAILED');
  t.is(again.target, 'first');
  t.is(handle.status()[0]?.state, 'failed');

  first.judge = () => undefined;
  await region.mapToGuest();
  t.is(handle.status()[0]?.state, 'mapped');
  t.deepEqual(first.heldText(), second.heldText());
});

test('rejects a target while a quarantine keeps the map from being mapped', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 2, 0x50);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
  const other = new RecordingTarget({ name: 'other', needsVa: true });
  await memory.dmaMappers.addDmaMapper(stuck);
  await memory.dmaMappers.addDmaMapper(other);
  stuck.judge = ({ op, request }) => (op === 'unmap' && second(request?.backing) ? new Error('stuck') : undefined);
  other.judge = ({ op, request }) => (op === 'map' && second(request?.backing) ? new Error('no room') : undefined);
  await rejectsCode(
    t,
    region.addMapping({ range: pages(0, 1), backing: { file, offset: PAGE } }),
    'ERR_ROLLBACK_FAILED',
  );

  other.judge = () => undefined;
  await rejectsCode(t, region.mapToGuest(), 'ERR_RANGE_QUARANTINED', 'nor is it tried again');
  t.deepEqual(other.held(), []);
  const late = new SimulatedIommu({ name: 'late' });
  await rejectsCode(t, memory.dmaMappers.addDmaMapper(late), 'ERR_RANGE_QUARANTINED');
  t.deepEqual(late.mappings(), []);
  stuck.loseAll();
  await memory.dmaMappers.targetClosed(stuck);
  t.deepEqual(other.heldText(), ['0x4000..0x5000 rw r'], 'what the quarantine kept away is back');
  t.is(other.held()[0]?.hostMemory?.read(0n, 1)[0], 0x50);
  await memory.dmaMappers.addDmaMapper(late);
  t.is(late.read(at(4), 1)[0], 0x50);
});

test('several ranges in quarantine within one mapping are all put right when their target is closed', async (t) => {
  const memory = await guest(t);
  const whole = taggedFile(t, 'whole', 4, 0x60);
  const patches = taggedFile(t, 'patches', 2, 0x70);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 4) });
  await region.addMapping({ range: pages(0, 4), backing: { file: whole, offset: 0n } });
  await region.mapToGuest();
  const overlay = await memory.regions.addRegion({ name: 'overlay', range: pages(5, 3), priority: 200 });
  await overlay.addMapping({ range: pages(0, 1), backing: { file: patches, offset: 0n } });
  await overlay.addMapping({ range: pages(2, 1), backing: { file: patches, offset: PAGE } });
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
  const other = new RecordingTarget({ name: 'other', needsVa: true });
  await memory.dmaMappers.addDmaMapper(stuck);
  await memory.dmaMappers.addDmaMapper(other);
  stuck.judge = ({ op, request }) => (op === 'unmap' && request?.name === 'overlay' ? new Error('stuck') : undefined);
  other.judge = ({ op, request }) => (op === 'map' && request?.name === 'overlay' ? new Error('no room') : undefined);
  await rejectsCode(t, overlay.mapToGuest(), 'ERR_ROLLBACK_FAILED');
  t.is(memory.inspect().quarantine.length, 2);
  await rejectsCode(t, region.unmapFromGuest(), 'ERR_RANGE_QUARANTINED', 'though it begins elsewhere');

  stuck.loseAll();
  await memory.dmaMappers.targetClosed(stuck);
  t.deepEqual(memory.inspect().quarantine, []);
  t.deepEqual(other.heldText(), ['0x4000..0x8000 rw r']);
  const late = new SimulatedIommu({ name: 'late' });
  await memory.dmaMappers.addDmaMapper(late);
  for (let page = 0; page < 4; page++) t.is(late.read(at(4 + page), 1)[0], 0x60 + page);
});

for (const needsVa of [false, true, 'private'] as const) {
  const how = needsVa === 'private' ? 'host memory of private memory alone' : needsVa ? 'host memory' : 'files';
  test(`does not retry over the target's own quarantine: it maps ${how}`, async (t) => {
    const memory = await guest(t);
    const file = taggedFile(t, 'file', 2, 0x50);
    const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
    await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
    await region.mapToGuest();
    const stuck = new RecordingTarget({ name: 'stuck', needsVa });
    const other = new RecordingTarget({ name: 'other', needsVa });
    const handle = await memory.dmaMappers.addDmaMapper(stuck);
    const others = await memory.dmaMappers.addDmaMapper(other);
    stuck.judge = ({ op, request }) => (op === 'unmap' && second(request?.backing) ? new Error('stuck') : undefined);
    other.judge = ({ op, request }) => (op === 'map' && second(request?.backing) ? new Error('no room') : undefined);
    await rejectsCode(
      t,
      region.addMapping({ range: pages(0, 1), backing: { file, offset: PAGE } }),
      'ERR_ROLLBACK_FAILED',
    );
    const states = (): string[] => handle.status().map(({ state }) => state);
    t.deepEqual(states(), ['failed', 'quarantined']);
    t.deepEqual(stuck.breaches, [], 'nothing is mapped over it in undoing');
    t.is(others.status()[0]?.code, needsVa === true ? 'ERR_RANGE_QUARANTINED' : undefined);
    await rejectsCode(t, region.mapToGuest(), 'ERR_RANGE_QUARANTINED');
    t.deepEqual(stuck.breaches, [], 'nor later');
    t.deepEqual(states(), ['failed', 'quarantined']);
    t.deepEqual(
      other.heldText(),
      needsVa === true ? [] : ['0x4000..0x5000 rw r'],
      'who needs no host memory has it back',
    );

    await memory.dmaMappers.targetClosed(stuck);
    t.deepEqual(other.heldText(), ['0x4000..0x5000 rw r']);
    await region.mapToGuest();
  });
}

for (const failing of [4, 6]) {
  test(`when a target closes, a failure of one range does not affect another: page ${failing} fails`, async (t) => {
    const memory = await guest(t);
    const whole = taggedFile(t, 'whole', 3, 0x60);
    const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 3) });
    await region.addMapping({ range: pages(0, 1), backing: { file: whole, offset: 0n } });
    await region.addMapping({ range: pages(2, 1), backing: { file: whole, offset: at(2) } });
    await region.mapToGuest();
    const overlay = await memory.regions.addRegion({ name: 'overlay', range: pages(4, 3), priority: 200 });
    await overlay.addMapping({ range: pages(0, 1), backing: 'private' });
    await overlay.addMapping({ range: pages(2, 1), backing: 'private' });
    const stuck = new RecordingTarget({ name: 'stuck', needsVa: true });
    const other = new RecordingTarget({ name: 'other', needsVa: true });
    await memory.dmaMappers.addDmaMapper(stuck);
    await memory.dmaMappers.addDmaMapper(other);
    stuck.judge = ({ op, request }) => (op === 'unmap' && request?.name === 'overlay' ? new Error('stuck') : undefined);
    other.judge = ({ op, request }) => (op === 'map' && request?.name === 'overlay' ? new Error('no room') : undefined);
    await rejectsCode(t, overlay.mapToGuest(), 'ERR_ROLLBACK_FAILED');
    t.is(memory.inspect().quarantine.length, 2);

    const full = [4, 6].map((page) => `${pages(page, 1)} rw r`);
    other.judge = ({ op, range }) => (op === 'map' && range.start === at(failing) ? new Error('not yet') : undefined);
    stuck.loseAll();
    const error = await rejectsCode(t, memory.dmaMappers.targetClosed(stuck), 'ERR_MAP_FAILED');
    t.deepEqual(error.range, pages(failing, 1));
    t.deepEqual(
      other.heldText(),
      full.filter((held) => !held.startsWith(String(pages(failing, 1)))),
    );
    other.judge = () => undefined;
    await region.mapToGuest();
    t.deepEqual(other.heldText(), full);
  });
}

test('a change elsewhere in the region maps a BAR that failed, in every target', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'bar', 4, 0x10);
  const targets = [new RecordingTarget({ name: 'a', needsVa: true }), new RecordingTarget({ name: 'b' })];
  for (const target of targets) await memory.dmaMappers.addDmaMapper(target);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(4) });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
  for (const target of targets) target.judge = () => new Error('decode is off');
  await bar.mapToGuest(at(4));
  for (const target of targets) {
    t.deepEqual(target.held(), []);
    target.judge = () => undefined;
  }
  await bar.addMapping({ range: AddressRange.of(at(2), PAGE), backing: { file, offset: at(2) } });
  const both = ['0x4000..0x5000 rw bar', '0x6000..0x7000 rw bar'];
  for (const target of targets) t.deepEqual(target.heldText(), both);

  for (const target of targets) target.judge = ({ op }) => (op === 'map' ? new Error('decode is off') : undefined);
  await bar.mapToGuest(at(8));
  for (const target of targets) target.judge = () => undefined;
  await bar.removeMappings(AddressRange.of(at(2), PAGE));
  for (const target of targets) t.deepEqual(target.heldText(), ['0x8000..0x9000 rw bar'], 'the other one is gone');
});

test('a change elsewhere in the region maps RAM that could not be restored, or fails', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 4, 0x20);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 4) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const target = new RecordingTarget({ needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const refuse = ({ op }: { op: string }): unknown => (op === 'map' ? new Error('no room') : undefined);
  target.judge = refuse;
  await rejectsCode(
    t,
    region.addMapping({ range: pages(0, 1), backing: { file, offset: PAGE } }),
    'ERR_ROLLBACK_FAILED',
  );
  t.is(handle.status()[0]?.state, 'failed');
  const elsewhere = { range: pages(2, 1), backing: { file, offset: at(2) } };
  t.deepEqual((await rejectsCode(t, region.addMapping(elsewhere), 'ERR_MAP_FAILED')).range, pages(4, 1));
  const other = await memory.regions.addRegion({ name: 'other', range: pages(12, 1) });
  target.judge = ({ op, range }) => (range.start === at(4) ? refuse({ op }) : undefined);
  await other.addMapping({ range: pages(0, 1), backing: 'private' });
  await other.mapToGuest();
  t.is(handle.status()[0]?.state, 'failed', 'a change of another region does not depend on it');

  target.judge = () => undefined;
  await region.addMapping(elsewhere);
  t.deepEqual(target.heldText(), ['0x4000..0x5000 rw r', '0x6000..0x7000 rw r', '0xc000..0xd000 rw other']);
  t.is(target.held()[0]?.hostMemory?.read(0n, 1)[0], 0x20);
});

test('a region whose memory could not be mapped can be unmapped and removed', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(2) });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  target.judge = () => new Error('never');
  await bar.mapToGuest(at(4));
  target.takeCalls();
  await bar.unmapFromGuest();
  await bar.mapToGuest(at(4));
  await bar.close();
  t.deepEqual(target.takeCalls(), ['map 0x4000..0x5000 rw refused'], 'and what goes is not tried again');
});

function second(backing: unknown): boolean {
  return typeof backing === 'object' && backing !== null && 'offset' in backing && backing.offset === PAGE;
}
