// One change at a time, in the order of the calls.
import test from 'ava';
import { AddressRange, type GuestMemory, PeerDmaError } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget, RefuseAt } from '../support/recording-target.ts';

function flat(memory: GuestMemory): string[] {
  return memory.inspect().flat.map(({ start, end, region }) => `${start}..${end} ${region}`);
}

test('changes that are called without awaiting apply in call order', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ needsVa: true, async: true });
  const registering = memory.dmaMappers.addDmaMapper(target);
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  const all = [
    registering,
    bar.mapToGuest(at(1)),
    bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' }),
    bar.mapToGuest(at(2)),
    bar.unmapFromGuest(),
    bar.mapToGuest(at(3), { writable: false }),
  ];
  t.deepEqual(target.calls, []);
  await Promise.all(all);
  t.deepEqual(target.calls, [
    'map 0x1000..0x2000 rw',
    'unmap 0x1000..0x2000',
    'map 0x2000..0x3000 rw',
    'unmap 0x2000..0x3000',
    'map 0x3000..0x4000 ro',
  ]);
  t.deepEqual(target.breaches, []);
});

test('a failed change does not hinder the next in the queue', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ async: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
  await region.mapToGuest();
  target.judge = new RefuseAt('map', 1).judge;
  const outcomes = await Promise.allSettled(
    [0, 1, 2].map((page) => region.addMapping({ range: pages(page, 1), backing: 'private' })),
  );
  t.deepEqual(
    outcomes.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  );
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw r', '0x2000..0x3000 rw r']);
});

test('one change is finished before the next one begins', async (t) => {
  const memory = await guest(t);
  const first = new RecordingTarget({ name: 'first', async: true });
  const second = new RecordingTarget({ name: 'second', async: true });
  await memory.dmaMappers.addDmaMapper(first);
  await memory.dmaMappers.addDmaMapper(second);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
  await region.mapToGuest();
  const log: string[] = [];
  for (const target of [first, second]) {
    target.judge = ({ range }) => void log.push(`${target.name} ${range.start / PAGE}`);
  }
  await Promise.all([0, 1].map((page) => region.addMapping({ range: pages(page, 1), backing: 'private' })));
  t.deepEqual(log, ['first 0', 'second 0', 'first 1', 'second 1']);
});

test('inspect reports only complete changes', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ async: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  const during: string[][] = [];
  target.judge = () => void during.push(flat(memory));
  await region.mapToGuest();
  t.deepEqual(during, [[]]);
  t.deepEqual(flat(memory), ['0x0..0x1000 r']);
});

test('a change made from inside mapDma queues behind the one that called it', async (t) => {
  const memory = await guest(t);
  const log: string[] = [];
  const [first, second] = ['first', 'second'].map((name) => {
    const target = new RecordingTarget({ name });
    target.judge = ({ op, range }) => void log.push(`${name} ${op} ${range}`);
    return target;
  });
  if (first === undefined || second === undefined) throw new Error('two were made');
  await memory.dmaMappers.addDmaMapper(first);
  await memory.dmaMappers.addDmaMapper(second);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
  await region.mapToGuest();
  const log1 = first.judge;
  let inner: Promise<void> | undefined;
  first.judge = (call) => {
    first.judge = log1;
    inner = region.addMapping({ range: pages(2, 1), backing: 'private' });
    return log1(call);
  };
  await region.addMapping({ range: pages(0, 2), backing: 'private' });
  t.not(inner, undefined);
  await inner;
  t.deepEqual(log, [
    'first map 0x0..0x2000',
    'second map 0x0..0x2000',
    'first map 0x2000..0x3000',
    'second map 0x2000..0x3000',
  ]);
});

test('makes the changes called before close, and rejects those after it', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ async: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
  const before = [region.mapToGuest(), region.addMapping({ range: pages(0, 1), backing: 'private' })];
  const closing = memory.close();
  const after = region.addMapping({ range: pages(1, 1), backing: 'private' });
  await rejectsCode(t, after, 'ERR_CLOSED');
  await Promise.all(before);
  await closing;
  t.deepEqual(target.calls, ['map 0x0..0x1000 rw', 'unmap 0x0..0x1000']);
  t.true((await region.unmapFromGuest().catch((error: unknown) => error)) instanceof PeerDmaError);
});

test('a target that does not settle keeps the queue waiting, and nobody from looking', async (t) => {
  const memory = await guest(t);
  let settle = (): void => {};
  let asked = (): void => {};
  const wasAsked = new Promise<void>((resolve) => (asked = resolve));
  const slow = {
    name: 'slow',
    mapDma: (): Promise<void> => {
      asked();
      return new Promise((resolve) => (settle = resolve));
    },
    unmapDma: (): void => {},
  };
  const handle = await memory.dmaMappers.addDmaMapper(slow);
  const shown = await memory.regions.addRegion({ name: 'shown', range: pages(0, 1) });
  await shown.mapToGuest();
  const order: string[] = [];
  const first = shown.addMapping({ range: pages(0, 1), backing: 'private' }).then(() => order.push('first'));
  const queued = memory.regions.addRegion({ name: 'queued', range: pages(4, 1) }).then(() => order.push('queued'));
  await wasAsked;
  await new Promise((resolve) => setTimeout(resolve, 20));
  t.deepEqual(order, [], 'the next change waits');
  t.deepEqual(flat(memory), [], 'which is as before');
  t.deepEqual(handle.status(), []);
  t.like(memory.inspect().targets, [{ name: 'slow', mappings: [] }]);
  throwsCode(t, () => memory.read(0n, 1), 'ERR_NOT_MAPPED');
  settle();
  await Promise.all([first, queued]);
  t.deepEqual(order, ['first', 'queued']);
  t.deepEqual(flat(memory), ['0x0..0x1000 shown']);
});

test('a change that a target asks for while everything closes is refused, and nothing waits for it', async (t) => {
  const file = taggedFile(t, 'file', 1, 0x44);
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget({ async: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  const asked: Promise<unknown>[] = [];
  target.judge = ({ op }) => {
    if (op === 'unmap') asked.push(region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } }));
    return undefined;
  };
  await memory.close();
  t.is(asked.length, 1);
  for (const change of asked) await rejectsCode(t, change, 'ERR_CLOSED');
  t.deepEqual(target.calls, ['map 0x0..0x1000 rw', 'unmap 0x0..0x1000']);
});
