// A target whose method never settles. targetClosed settles the call, and the queued changes continue.
import test, { type ExecutionContext } from 'ava';
import { AddressRange, type DeviceMemory, type GuestMemory } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { BatchRecordingTarget, RecordingTarget } from '../support/recording-target.ts';
import { until } from '../support/until.ts';

interface Call {
  readonly method: string;
  readonly settle: (error?: Error) => void;
}

/** From now on these methods of the target never settle. @returns the calls that hang */
function hang(target: RecordingTarget, ...methods: ('mapDma' | 'unmapDma' | 'mapDmaBatch')[]): Call[] {
  const calls: Call[] = [];
  for (const method of methods) {
    const never = (): Promise<void> =>
      new Promise((resolve, reject) => {
        calls.push({ method, settle: (error) => (error === undefined ? resolve() : reject(error)) });
      });
    Object.assign(target, { [method]: never });
  }
  return calls;
}

interface Scene {
  readonly memory: GuestMemory;
  readonly bar: DeviceMemory;
  readonly other: RecordingTarget;
}

/** RAM in page 0, a BAR without an address, and a target that works. */
async function scene(t: ExecutionContext): Promise<Scene> {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const file = taggedFile(t, 'bar', 1, 0x10);
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
  const other = new RecordingTarget({ name: 'other', needsVa: true, async: true });
  await memory.dmaMappers.addDmaMapper(other);
  return { memory, bar, other };
}

const RAM = '0x0..0x1000 rw ram0';

for (const needsVa of [false, true]) {
  for (const late of ['resolves', 'rejects', 'never settles'] as const) {
    const host = needsVa ? 'with host memory' : 'without host memory';
    test(`targetClosed ends a map that hangs, and the change continues: ${host}, ${late} later`, async (t) => {
      const { memory, bar, other } = await scene(t);
      const hung = new RecordingTarget({ name: 'hung', needsVa });
      const handle = await memory.dmaMappers.addDmaMapper(hung, { peerToPeer: 'required' });
      const calls = hang(hung, 'mapDma', 'unmapDma');
      const placed = bar.mapToGuest(at(4));
      await until(() => calls.length === 1, 'the map is in progress');
      const behind = bar.mapToGuest(at(8));
      await memory.dmaMappers.targetClosed(hung);
      await placed;
      await behind;
      t.deepEqual(other.heldText(), [RAM, '0x8000..0x9000 rw bar']);
      t.is(calls.length, 1, 'a closed target is not called any more');
      t.deepEqual(handle.status(), []);
      t.deepEqual(
        memory.inspect().targets.map(({ name }) => name),
        ['other'],
      );
      if (late === 'resolves') calls[0]?.settle();
      if (late === 'rejects') calls[0]?.settle(new Error('too late')); // an unhandled rejection would fail the test
      await bar.unmapFromGuest();
      t.deepEqual(other.heldText(), [RAM]);
      await memory.close();
    });
  }
}

test('an unmap that hangs ends with targetClosed, and nothing is in quarantine', async (t) => {
  const { memory, bar, other } = await scene(t);
  const hung = new RecordingTarget({ name: 'hung', needsVa: true });
  await memory.dmaMappers.addDmaMapper(hung);
  await bar.mapToGuest(at(4));
  const calls = hang(hung, 'unmapDma');
  const moved = bar.mapToGuest(at(8));
  await until(() => calls.length === 1, 'the unmap is in progress');
  await memory.dmaMappers.targetClosed(hung);
  await moved;
  t.deepEqual(other.heldText(), [RAM, '0x8000..0x9000 rw bar']);
  t.deepEqual(memory.inspect().quarantine, []);
  calls[0]?.settle(new Error('too late'));
  await bar.mapToGuest(at(4));
});

/** A target that hangs while it joins: it maps RAM and a region of private memory in one batch. */
async function hungJoin(t: ExecutionContext) {
  const made = await scene(t);
  const region = await made.memory.regions.addRegion({ name: 'r', range: pages(2, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await region.mapToGuest();
  const hung = new BatchRecordingTarget({ name: 'hung', needsVa: true });
  const calls = hang(hung, 'mapDmaBatch');
  const joining = made.memory.dmaMappers.addDmaMapper(hung);
  await until(() => calls.length === 1, 'the batch is in progress');
  return { ...made, region, hung, calls, joining };
}

test('a batch that hangs while a target joins ends with targetClosed, and the target has not joined', async (t) => {
  const { memory, bar, other, hung, calls, joining } = await hungJoin(t);
  const placed = bar.mapToGuest(at(4));
  const closed = memory.dmaMappers.targetClosed(hung);
  t.is((await rejectsCode(t, joining, 'ERR_CLOSED')).target, 'hung');
  await Promise.all([placed, closed]);
  t.deepEqual(other.heldText(), [RAM, '0x2000..0x3000 rw r', '0x4000..0x5000 rw bar']);
  t.is(memory.inspect().targets.length, 1);

  Reflect.deleteProperty(hung, 'mapDmaBatch');
  await memory.dmaMappers.addDmaMapper(hung);
  calls[0]?.settle(new Error('too late'));
  t.deepEqual(hung.heldText(), other.heldText(), 'it can join again');
});

test('a queued removal continues after targetClosed for a target that hangs while it joins', async (t) => {
  const { memory, other, region, hung, joining } = await hungJoin(t);
  const removed = region.remove();
  const closed = memory.dmaMappers.targetClosed(hung);
  await rejectsCode(t, joining, 'ERR_CLOSED');
  await removed;
  await closed;
  t.deepEqual(other.heldText(), [RAM]);
  t.is(memory.inspect().targets.length, 1);
});

test('a target that is closed before its turn to join does not join', async (t) => {
  const { memory, bar } = await scene(t);
  const late = new RecordingTarget({ name: 'late' });
  const moved = bar.mapToGuest(at(4));
  const joining = memory.dmaMappers.addDmaMapper(late);
  const closed = memory.dmaMappers.targetClosed(late);
  await rejectsCode(t, joining, 'ERR_CLOSED');
  await Promise.all([moved, closed]);
  t.deepEqual(late.calls, []);
  await memory.dmaMappers.addDmaMapper(late);
});

for (const what of ['close of guest memory', 'removal of the target'] as const) {
  test(`a ${what} that hangs ends with targetClosed`, async (t) => {
    const { memory, other } = await scene(t);
    const hung = new RecordingTarget({ name: 'hung', needsVa: true });
    const handle = await memory.dmaMappers.addDmaMapper(hung);
    const calls = hang(hung, 'unmapDma');
    const ending = what === 'removal of the target' ? handle.remove() : memory.close();
    await until(() => calls.length === 1, 'the unmap is in progress');
    await memory.dmaMappers.targetClosed(hung);
    await ending;
    await handle.remove();
    t.deepEqual(memory.inspect().quarantine, []);
    await memory.close();
    t.deepEqual(other.held(), []);
  });
}

test('a change that fails after its target was closed is rolled back in the others', async (t) => {
  const { memory, bar, other } = await scene(t);
  const hung = new RecordingTarget({ name: 'hung', needsVa: true });
  await memory.dmaMappers.addDmaMapper(hung);
  await bar.mapToGuest(at(4));
  const last = new RecordingTarget({ name: 'last' });
  await memory.dmaMappers.addDmaMapper(last, { peerToPeer: 'required' });
  const calls = hang(hung, 'mapDma');
  last.judge = ({ op, range }) => (op === 'map' && range.start === at(8) ? new Error('no room') : undefined);
  const moved = bar.mapToGuest(at(8));
  await until(() => calls.length === 1, 'the map is in progress');
  const closed = memory.dmaMappers.targetClosed(hung);
  t.is((await rejectsCode(t, moved, 'ERR_MAP_FAILED')).target, 'last');
  await closed;
  for (const target of [other, last]) t.deepEqual(target.heldText(), [RAM, '0x4000..0x5000 rw bar']);
});

test('maps the quarantine of a closed target to the others, even if a call of it hangs', async (t) => {
  const { memory, bar, other } = await scene(t);
  const hung = new RecordingTarget({ name: 'hung', needsVa: true });
  await memory.dmaMappers.addDmaMapper(hung);
  await bar.mapToGuest(at(4));
  hung.judge = ({ op }) => (op === 'unmap' ? new Error('busy') : undefined);
  await rejectsCode(t, bar.unmapFromGuest(), 'ERR_UNMAP_FAILED');
  const region = await memory.regions.addRegion({ name: 'r', range: pages(2, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  const calls = hang(hung, 'mapDma');
  const mapped = region.mapToGuest();
  await until(() => calls.length === 1, 'the map is in progress');
  await memory.dmaMappers.targetClosed(hung);
  await mapped;
  await bar.unmapFromGuest();
  t.deepEqual(other.heldText(), [RAM, '0x2000..0x3000 rw r']);
});

test('a target that calls targetClosed before its own call returns does not hang the change', async (t) => {
  const { memory, bar, other } = await scene(t);
  const hung = new RecordingTarget({ name: 'hung', needsVa: true });
  await memory.dmaMappers.addDmaMapper(hung);
  let closed: Promise<void> | undefined;
  let fail: (error: Error) => void = () => {};
  hung.mapDma = () => {
    closed = memory.dmaMappers.targetClosed(hung);
    return new Promise<void>((_, reject) => (fail = reject));
  };
  await bar.mapToGuest(at(4));
  await closed;
  fail(new Error('too late')); // an unhandled rejection would fail the test
  t.deepEqual(other.heldText(), [RAM, '0x4000..0x5000 rw bar']);
});

test('each of two calls of targetClosed ends a join that was called before it', async (t) => {
  const { memory, bar } = await scene(t);
  const hung = new RecordingTarget({ name: 'hung' });
  const calls = hang(hung, 'mapDma');
  const moved = bar.mapToGuest(at(4));
  const first = memory.dmaMappers.targetClosed(hung);
  const joining = memory.dmaMappers.addDmaMapper(hung);
  const second = memory.dmaMappers.targetClosed(hung);
  await rejectsCode(t, joining, 'ERR_CLOSED');
  await Promise.all([moved, first, second]);
  t.deepEqual(calls, []);
});
