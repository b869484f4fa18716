// The list of shareable memory, and its changes: a consumer that applies them has the list, however slow it is.
import { fstatSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import test from 'ava';
import { AddressRange, GuestMemory, MemoryFile, type SharedRange, type SharingChange } from '../../ts/index.ts';
import { DmaBuffer } from '../../ts/driver.ts';
import { SimulatedDevice } from '../../ts/testing.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { seedOf } from '../support/seed.ts';

const text = ({ range, offset, writable, kind, region }: SharedRange): string =>
  `${range} ${region}+${offset / PAGE} ${kind} ${writable ? 'rw' : 'ro'}`;
const textOf = ({ removed, added }: SharingChange): [string[], string[]] => [removed.map(text), added.map(text)];

/** Applies changes as another process would. */
class Consumer {
  readonly ranges = new Map<bigint, SharedRange>();

  apply({ removed, added }: SharingChange): void {
    for (const one of removed) {
      if (this.ranges.get(one.range.start) !== one) throw new Error(`${one.range} was not added so`);
      this.ranges.delete(one.range.start);
    }
    for (const one of added) {
      for (const { range } of this.ranges.values()) if (range.overlaps(one.range)) throw new Error('they overlap');
      if (fstatSync(one.file.fd).size === 0) throw new Error('the file is not open');
      this.ranges.set(one.range.start, one);
    }
  }

  texts(): string[] {
    return [...this.ranges.values()].sort((a, b) => (a.range.start < b.range.start ? -1 : 1)).map(text);
  }
}

test('lists RAM and device memory of files that other processes can map', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE },
      { start: at(4), length: PAGE, private: true },
    ],
  });
  const device = new SimulatedDevice({ bdf: '0000:41:00.0', bars: [{ index: 0, length: PAGE }] });
  t.teardown(() => device.close());
  const bar = device.regions[0];
  if (bar === undefined) throw new Error('the device has BAR 0');
  const file = taggedFile(t, 'file', 4, 1);
  const windows = [
    [{ name: 'bar' }, bar.backing()],
    [{ name: 'shared' }, { file, offset: at(2) }],
    [
      { name: 'hidden', peerToPeer: false },
      { file, offset: 0n },
    ],
    [
      { name: 'trapped', mmap: false },
      { file, offset: 0n },
    ],
    [
      { name: 'a', peerToPeerDomain: 'a' },
      { file, offset: 0n },
    ],
  ] as const;
  for (const [index, [options, backing]] of windows.entries()) {
    const window = memory.newDeviceMemory({ ...options, length: PAGE });
    await window.addMapping({ backing });
    await window.mapToGuest(at(8 + index), { writable: false });
  }
  const listed = memory.sharing.snapshot();
  t.deepEqual(listed.map(text), [
    '0x0..0x1000 ram0+0 ram rw',
    '0x9000..0xa000 shared+2 device ro',
    '0xb000..0xc000 trapped+0 device ro',
  ]);
  t.true(Object.isFrozen(listed) && listed.every((one) => Object.isFrozen(one)));
  t.deepEqual(listed[1]?.file.read(listed[1].offset, 1), file.read(at(2), 1));
  const inA = memory.sharing.snapshot({ peerToPeerDomains: ['a'] });
  t.deepEqual(inA.map(text), ['0x0..0x1000 ram0+0 ram rw', '0xc000..0xd000 a+0 device ro']);
});

test('the first change has all ranges, and the next ones what is removed and added', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(4) }] });
  const changes = memory.sharing.changes();
  const next = async (): Promise<[string[], string[]]> => textOf((await changes.next()).value as SharingChange);
  t.deepEqual(await next(), [[], ['0x0..0x4000 ram0+0 ram rw']]);
  const pending = next();
  const rom = await memory.regions.addRegion({ name: 'rom', range: pages(1, 1), priority: 200 });
  await rom.addMapping({ backing: 'private' });
  await rom.mapToGuest();
  t.deepEqual(await pending, [
    ['0x0..0x4000 ram0+0 ram rw'],
    ['0x0..0x1000 ram0+0 ram rw', '0x2000..0x4000 ram0+2 ram rw'],
  ]);
  await rom.remove();
  t.deepEqual(await next(), [[], ['0x1000..0x2000 ram0+1 ram rw']]);
  await changes.return();
  t.deepEqual(await changes.next(), { done: true, value: undefined });
});

test('changes that cancel each other out are not reported to a slow consumer', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const changes = memory.sharing.changes();
  await changes.next();
  const file = taggedFile(t, 'file', 1, 1);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ backing: { file, offset: 0n } });
  for (let round = 0; round < 3; round++) {
    await region.mapToGuest();
    await region.unmapFromGuest();
  }
  await region.mapToGuest();
  const { value } = await changes.next();
  t.deepEqual(textOf(value as SharingChange), [[], ['0x4000..0x5000 r+0 ram rw']]);
  let settled = false;
  const pending = changes.next().finally(() => (settled = true));
  await turn();
  t.false(settled, 'there is no further change');
  await memory.close();
  t.is(((await pending).value as SharingChange).removed.length, 2);
});

test('the file of a received range is open until the change after its removal, if its owner closes it', async (t) => {
  const memory = await guest(t);
  const file = MemoryFile.create(PAGE, { name: 'closed early' });
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ backing: { file, offset: 0n } });
  await region.mapToGuest();
  const changes = memory.sharing.changes();
  const [one] = ((await changes.next()).value as SharingChange).added;
  if (one === undefined) throw new Error('the range is listed');
  file.close();
  await region.remove();
  t.is(fstatSync(one.file.fd).size, Number(PAGE), 'the removal was not received');
  const { removed } = (await changes.next()).value as SharingChange;
  t.is(removed[0], one);
  t.is(fstatSync(one.file.fd).size, Number(PAGE), 'the removal is being processed');
  const pending = changes.next();
  await turn();
  throwsCode(t, () => one.file.fd, 'ERR_CLOSED');
  await memory.close();
  t.is((await pending).done, true);
});

for (const end of ['break', 'signal', 'throw', 'close'] as const) {
  test(`releases the files when the iteration ends by ${end}`, async (t) => {
    const memory = await guest(t);
    const file = MemoryFile.create(PAGE);
    const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
    await region.addMapping({ backing: { file, offset: 0n } });
    await region.mapToGuest();
    const abort = new AbortController();
    const changes = memory.sharing.changes({ signal: abort.signal });
    const [one] = ((await changes.next()).value as SharingChange).added;
    file.close();
    await region.remove();
    t.is(one?.file.length, PAGE);
    if (end === 'break') for await (const _ of changes) break;
    if (end === 'throw') await t.throwsAsync(changes.throw(new Error('the consumer fails')), { message: /fails/ });
    if (end === 'close') await memory.close();
    if (end === 'signal') {
      const reason = new Error('enough');
      abort.abort(reason);
      t.is(await t.throwsAsync(changes.next()), reason);
    }
    throwsCode(t, () => one?.file.fd, 'ERR_CLOSED');
  });
}

test('a signal ends a wait for the next change, and leaves no listener', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const abort = new AbortController();
  const changes = memory.sharing.changes({ signal: abort.signal });
  await changes.next();
  const pending = changes.next();
  await turn();
  abort.abort('reason');
  t.is(await pending.catch((reason: unknown) => reason), 'reason');
  t.deepEqual(await changes.next(), { done: true, value: undefined });
});

test('return ends a pending call of next', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const changes = memory.sharing.changes();
  await changes.next();
  const pending = changes.next();
  await turn();
  t.deepEqual(await Promise.race([changes.return(), turn('it waits')]), { done: true, value: undefined });
  t.deepEqual(await Promise.race([pending, turn('it waits')]), { done: true, value: undefined });
});

test('an abort releases the files of a consumer that never asks again', async (t) => {
  const memory = await guest(t);
  const file = MemoryFile.create(PAGE);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ backing: { file, offset: 0n } });
  await region.mapToGuest();
  const abort = new AbortController();
  const [one] = ((await memory.sharing.changes({ signal: abort.signal }).next()).value as SharingChange).added;
  file.close();
  await region.remove();
  t.is(one?.file.length, PAGE);
  abort.abort();
  throwsCode(t, () => one?.file.fd, 'ERR_CLOSED');
});

test('DMA buffers of the VMM are not listed', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  await DmaBuffer.allocate(memory, PAGE);
  t.deepEqual(memory.sharing.snapshot().map(text), ['0x0..0x1000 ram0+0 ram rw']);
  const { value } = await memory.sharing.changes().next();
  t.is((value as SharingChange).added.length, 1);
});

test('guest memory without shareable memory ends the iteration without a change', async (t) => {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: PAGE, private: true }] });
  const pending = memory.sharing.changes().next();
  await memory.close();
  t.deepEqual(await pending, { done: true, value: undefined });
  t.deepEqual(await memory.sharing.changes().next(), { done: true, value: undefined });
  t.deepEqual(memory.sharing.snapshot(), []);
  t.teardown(() => memory.close());
});

test('a failed change is not reported', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const changes = memory.sharing.changes();
  await changes.next();
  let fails = true;
  await memory.dmaMappers.addDmaMapper({
    name: 'failing',
    mapDma: ({ range }) => {
      if (fails && range.start > 0n) throw new Error('refused');
    },
    unmapDma: () => {},
  });
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ backing: { file: taggedFile(t, 'file', 1, 1), offset: 0n } });
  await rejectsCode(t, region.mapToGuest(), 'ERR_MAP_FAILED');
  fails = false;
  const pending = changes.next();
  await turn();
  t.is(memory.sharing.snapshot().length, 1);
  await region.mapToGuest();
  t.deepEqual(textOf((await pending).value as SharingChange), [[], ['0x4000..0x5000 r+0 ram rw']]);
});

test('a consumer that applies the changes has the list, in random programs', async (t) => {
  const step = fc.record({
    what: fc.constantFrom('map', 'unmap', 'receive', 'rom', 'noRom'),
    region: fc.nat(3),
    place: fc.nat(12),
  });
  const property = fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
    await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: at(8) }], addressWidth: 20 });
    using file = MemoryFile.create(at(8));
    const windows = await Promise.all(
      [0, 1, 2, 3].map(async (index) => {
        const window = memory.newDeviceMemory({ name: `w${index}`, length: at(2) });
        await window.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: at(index) } });
        await window.addMapping({ range: pages(1, 1), backing: index === 3 ? 'private' : { file, offset: 0n } });
        return window;
      }),
    );
    const rom = await memory.regions.addRegion({ name: 'rom', range: pages(3, 2), priority: 200 });
    await rom.addMapping({ backing: 'private' });
    const changes = memory.sharing.changes();
    const consumer = new Consumer();
    const receive = async (): Promise<void> => {
      const before = consumer.texts();
      if (String(before) === String(memory.sharing.snapshot().map(text))) return;
      consumer.apply((await changes.next()).value as SharingChange);
      const now = memory.sharing.snapshot().map(text);
      if (String(consumer.texts()) !== String(now)) throw new Error(`${consumer.texts()} and not ${now}`);
    };
    for (const { what, region, place } of steps) {
      if (what === 'map') await windows[region]?.mapToGuest(at(place));
      else if (what === 'unmap') await windows[region]?.unmapFromGuest();
      else if (what === 'rom') await rom.mapToGuest();
      else if (what === 'noRom') await rom.unmapFromGuest();
      else await receive();
    }
    await receive();
    await changes.return();
  });
  await t.notThrowsAsync(fc.assert(property, { seed: seedOf(t), numRuns: 150 }));
});

test('rejects invalid options', async (t) => {
  const memory = await guest(t);
  for (const options of [{ signal: 1 }, { peerToPeerDomains: 'a' }, 5] as never[]) {
    throwsCode(t, () => memory.sharing.changes(options), 'ERR_INVALID_ARGUMENT');
  }
  throwsCode(t, () => memory.sharing.snapshot(null as never), 'ERR_INVALID_ARGUMENT');
});
