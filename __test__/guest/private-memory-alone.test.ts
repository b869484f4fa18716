/**
 * Targets that take files as files, and private memory, which is none, by its place in this process (`needsVa: 'private'`).
 */
import test from 'ava';
import { AddressRange, PeerDmaError, SimulatedIommu } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { interposeNative, outOfMemory } from '../support/native-faults.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget, RefuseAt } from '../support/recording-target.ts';
import { isShown, largestUntouchable } from '../support/reserved.ts';

/** Calls into the native core since the last look. */
const ops: string[] = [];
/** The number of the call that fails, from 0. */
let failing = -1;
let seen = 0;
interposeNative((op) => {
  ops.push(op);
  if (seen++ === failing) throw outOfMemory(op);
});

/** From now on the `k`th call fails, or none. */
function failNative(k = -1): void {
  failing = k;
  seen = 0;
  ops.length = 0;
}

test.serial('reserves no address space before private memory is mapped, and maps no file in it', async (t) => {
  const width = 45; // so wide that nothing else in this process is as large
  const size = 1n << BigInt(width);
  const memory = await guest(t, { addressWidth: width });
  const file = taggedFile(t, 'never-shown', 2, 0x30);
  const ram = await memory.regions.addRegion({ name: 'ram', range: pages(4, 2) });
  await ram.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  await ram.mapToGuest();
  const target = new RecordingTarget({ needsVa: 'private' });
  const iommu = new SimulatedIommu({ rules: 'iommufd' });
  await memory.dmaMappers.addDmaMapper(target);
  await memory.dmaMappers.addDmaMapper(iommu);
  await ram.mapToGuest({ writable: false });
  await ram.mapToGuest();
  t.is(target.held()[0]?.hostMemory, undefined);
  t.is(iommu.read(at(5), 1)[0], 0x31, 'DMA works without');
  t.true(largestUntouchable() < size - at(8));

  const more = await memory.regions.addRegion({ name: 'more', range: pages(0, 1) });
  await more.addMapping({ range: pages(0, 1), backing: 'private' });
  t.true(largestUntouchable() < size - at(8), 'what is inactive is nothing yet');
  await more.mapToGuest();
  t.true(largestUntouchable() >= size - at(8));
  memory.write(0n, Uint8Array.of(0x77));
  t.deepEqual(
    target.held().map(({ hostMemory }) => hostMemory?.read(0n, 1)[0]),
    [0x77, undefined],
  );
  t.is(iommu.read(0n, 1)[0], 0x77);
  t.false(isShown('never-shown'));
  t.deepEqual(target.breaches, []);
});

test.serial('maps and faults in only private memory for a target that joins', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: at(2) },
      { start: at(4), length: at(2), private: true },
      { start: at(8), length: at(2) },
      { start: at(12), length: at(2), private: true },
    ],
  });
  const target = new RecordingTarget({ needsVa: 'private' });
  failNative();
  const handle = await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(ops, ['mapPrivate', 'mapPrivate', 'ensureMapped', 'lease']);
  t.deepEqual(
    target.held().map(({ hostMemory }) => hostMemory?.length),
    [undefined, at(2), undefined, at(2)],
  );
  const before = memory.inspect();
  await handle.remove();
  for (let k = 0; k < 4; k++) {
    const late = await guest(t, { ram: [{ start: 0n, length: at(2) }] });
    const region = await late.regions.addRegion({ name: 'p', range: pages(4, 2), kind: 'ram' });
    await region.addMapping({ range: pages(0, 1), backing: 'private' });
    await region.addMapping({ range: pages(1, 1), backing: 'private' });
    await region.mapToGuest();
    const snapshot = late.inspect();
    failNative(k);
    await rejectsCode(t, late.dmaMappers.addDmaMapper(target), 'ERR_SYSTEM', `call ${k}`);
    t.is(ops.length, k + 1);
    failNative();
    t.deepEqual(target.held(), [], `call ${k}`);
    t.deepEqual(late.inspect(), snapshot);
    await (await late.dmaMappers.addDmaMapper(target)).remove();
  }
  await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(memory.inspect(), before);
  t.deepEqual(target.breaches, []);
});

test.serial('a change maps only private memory in this process when no target needs more', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'by-file', 2, 0x30);
  const target = new RecordingTarget({ name: 'by file', needsVa: 'private' });
  const whole = new RecordingTarget({ name: 'whole', needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  await region.addMapping({ range: pages(2, 2), backing: 'private' });
  failNative();
  await region.mapToGuest();
  t.deepEqual(ops, ['mapPrivate', 'ensureMapped', 'lease']);

  failNative();
  const handle = await memory.dmaMappers.addDmaMapper(whole);
  t.deepEqual(ops, ['mapFile', 'ensureMapped', 'lease'], 'the rest is shown for whom it is needed');
  t.deepEqual(
    [whole, target].map((one) => one.held().map(({ hostMemory }) => hostMemory !== undefined)),
    [
      [true, true],
      [false, true],
    ],
  );
  await handle.remove();
  await region.unmapFromGuest();
  t.false(isShown('by-file'));
  failNative();
  await region.mapToGuest();
  t.deepEqual(ops, ['mapPrivate', 'ensureMapped', 'lease'], 'nobody is left for it');
  t.deepEqual([...target.breaches, ...whole.breaches], []);
});

test.serial('a change fails at each call into the native core, and everything is as it was', async (t) => {
  for (let k = 0, hit = true; hit; k++) {
    const memory = await guest(t);
    const file = taggedFile(t, 'file', 4, 0x30);
    const target = new RecordingTarget({ needsVa: 'private' });
    const iommu = new SimulatedIommu({ rules: 'iommufd' });
    const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
    await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
    await region.addMapping({ range: pages(2, 2), backing: 'private' });
    await region.mapToGuest();
    memory.write(at(2), Uint8Array.of(0x71));
    await memory.dmaMappers.addDmaMapper(target);
    await memory.dmaMappers.addDmaMapper(iommu);
    const before = memory.inspect();
    const rom = await memory.regions.addRegion({ name: 'rom', range: pages(1, 2), priority: 200 });
    await rom.addMapping({ range: pages(0, 1), backing: { file, offset: at(2) } });
    await rom.addMapping({ range: pages(1, 1), backing: 'private' });
    failNative(k);
    const code = await rom.mapToGuest().then(
      () => 'OK',
      (error: unknown) => (error instanceof PeerDmaError ? error.code : String(error)),
    );
    hit = seen > k;
    failNative();
    t.is(code, hit ? 'ERR_SYSTEM' : 'OK', `call ${k}`);
    if (!hit) {
      t.true(k > 4, 'there were such calls');
      t.deepEqual(
        [0, 1, 2, 3].map((page) => iommu.read(at(page), 1)[0]),
        [0x30, 0x32, 0, 0],
      );
      continue;
    }
    t.deepEqual(memory.inspect().flat, before.flat, `call ${k}`);
    t.deepEqual(memory.inspect().targets, before.targets);
    t.deepEqual(iommu.read(at(2), 1), Uint8Array.of(0x71));
    t.is(target.held()[1]?.hostMemory?.read(0n, 1)[0], 0x71);
    await rom.mapToGuest();
    t.deepEqual(target.heldText(), [
      '0x0..0x1000 rw r',
      '0x1000..0x2000 rw rom',
      '0x2000..0x3000 rw rom',
      '0x3000..0x4000 rw r',
    ]);
    t.deepEqual(target.breaches, []);
  }
});

test.serial('a file in quarantine does not block private memory in this process', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 1, 0x30);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 2) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.addMapping({ range: pages(1, 1), backing: 'private' });
  await region.mapToGuest();
  memory.write(at(5), Uint8Array.of(0x55));
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: 'private' });
  const handle = await memory.dmaMappers.addDmaMapper(stuck);
  stuck.judge = ({ op, range }) => (op === 'unmap' && range.start === at(4) ? new Error('stuck') : undefined);
  await rejectsCode(t, handle.remove(), 'ERR_UNMAP_FAILED');
  t.deepEqual(stuck.heldText(), ['0x4000..0x5000 rw r'], 'the private memory went');
  await rejectsCode(t, region.unmapFromGuest(), 'ERR_RANGE_QUARANTINED');
  const other = new SimulatedIommu({ rules: 'iommufd' });
  await memory.dmaMappers.addDmaMapper(other);
  t.deepEqual(
    [4, 5].map((page) => other.read(at(page), 1)[0]),
    [0x30, 0x55],
  );
  stuck.loseAll();
  await memory.dmaMappers.targetClosed(stuck);
  await region.unmapFromGuest();
});

test.serial('private memory in quarantine stays in this process until the target is closed', async (t) => {
  const memory = await guest(t);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await region.mapToGuest();
  memory.write(at(4), Uint8Array.of(0x55));
  const stuck = new RecordingTarget({ name: 'stuck', needsVa: 'private' });
  await memory.dmaMappers.addDmaMapper(stuck);
  stuck.judge = new RefuseAt('unmap', 0).judge;
  await rejectsCode(t, region.addMapping({ range: pages(0, 1), backing: 'private' }), 'ERR_UNMAP_FAILED');
  t.is(stuck.held()[0]?.hostMemory?.read(0n, 1)[0], 0x55);
  await rejectsCode(t, memory.close(), 'ERR_UNMAP_FAILED');
  t.is(stuck.held()[0]?.hostMemory?.read(0n, 1)[0], 0x55, 'also when guest memory is to be closed');
  stuck.loseAll();
  await memory.dmaMappers.targetClosed(stuck);
});

test.serial('private memory keeps its bytes when it moves while hidden or unused', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'cover', 2, 0x30);
  const cover = await memory.regions.addRegion({ name: 'cover', range: pages(4, 2), priority: 200 });
  await cover.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  const window = memory.newDeviceMemory({ name: 'window', length: at(2) });
  await window.addMapping({ range: AddressRange.of(0n, at(2)), backing: 'private' });
  await window.mapToGuest(at(4));
  memory.write(at(4), Uint8Array.of(0x64));
  memory.write(at(5), Uint8Array.of(0x65));
  const target = new RecordingTarget({ name: 'target', needsVa: 'private' });
  const iommu = new SimulatedIommu({ rules: 'iommufd' });
  let handle = await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
  await memory.dmaMappers.addDmaMapper(iommu);
  const found = (from: number): (number | undefined)[] => [from, from + 1].map((page) => iommu.read(at(page), 1)[0]);

  await cover.mapToGuest();
  t.deepEqual(found(4), [0x30, 0x31]);
  await window.mapToGuest(at(5)); // half of it is seen
  t.deepEqual(target.heldText(), ['0x4000..0x6000 rw cover', '0x6000..0x7000 rw window']);
  t.is(target.held()[1]?.hostMemory?.read(0n, 1)[0], 0x65);
  await window.mapToGuest(at(4));
  await window.mapToGuest(at(8));
  t.deepEqual(found(8), [0x64, 0x65]);

  await handle.remove();
  await window.mapToGuest(at(12)); // the other target has it
  await window.unmapFromGuest();
  await window.mapToGuest(at(4));
  await cover.unmapFromGuest();
  t.deepEqual(found(4), [0x64, 0x65]);
  handle = await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(
    target.held().map(({ hostMemory }) => [...(hostMemory?.read(PAGE, 1) ?? [])]),
    [[0x65]],
  );
  t.deepEqual(target.breaches, []);
});

test.serial('leases private memory only at its new addresses after it moved without targets', async (t) => {
  const memory = await guest(t);
  const window = memory.newDeviceMemory({ name: 'window', length: PAGE });
  await window.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await window.mapToGuest(at(4));
  memory.write(at(4), Uint8Array.of(0x64));
  const target = new RecordingTarget({ needsVa: 'private' });
  await (await memory.dmaMappers.addDmaMapper(target)).remove();
  failNative();
  await window.mapToGuest(at(8));
  t.deepEqual(ops, ['unmap'], 'it goes from its old place, and is shown when somebody wants it');
  await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(ops, ['unmap', 'mapPrivate', 'ensureMapped', 'lease']);
  t.is(target.held()[0]?.hostMemory?.read(0n, 1)[0], 0x64);
});
