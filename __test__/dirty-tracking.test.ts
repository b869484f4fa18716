/**
 * Dirty pages over several address spaces, which are fakes here.
 *
 * __test__/vfio/dirty-tracking.test.ts uses the kernel.
 */
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { AddressRange, PeerDmaError, type GuestMemory } from '../ts/index.ts';
import { DirtyPages, type DirtyTracker } from '../ts/dma/dirty-pages.ts';
import { guestAddressSpaceOf } from '../ts/guest/guest-memory.ts';
import { DirtyTracking } from '../ts/guest/dirty-tracking.ts';
import { rejectsCode } from './support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from './support/pages.ts';
import { seedOf } from './support/seed.ts';

/** An address space that logs like iommufd: a read clears the log, and only whole mappings can be read. */
class Log implements DirtyTracker {
  readonly name: string;
  readonly calls: string[] = [];
  refuses: string | undefined;
  #on = false;
  readonly #written = new Set<number>();

  constructor(name: string) {
    this.name = name;
  }

  get on(): boolean {
    return this.#on;
  }

  async startDirtyTracking(): Promise<void> {
    this.#ask('start');
    this.#on = true;
  }

  async stopDirtyTracking(): Promise<void> {
    this.#ask('stop');
    this.#on = false;
    this.#written.clear();
  }

  async readDirty(range: AddressRange): Promise<DirtyPages> {
    this.#ask(`read ${range}`);
    const found = new DirtyPages(range, PAGE);
    for (const page of this.#written) {
      if (!range.contains(pages(page, 1))) continue;
      this.#written.delete(page);
      const bit = page - Number(range.start / PAGE);
      found.bitmap[bit >> 6] = (found.bitmap[bit >> 6] ?? 0n) | (1n << BigInt(bit & 63));
    }
    return found;
  }

  /** A write of the device. */
  write(...written: readonly number[]): void {
    if (this.#on) for (const page of written) this.#written.add(page);
  }

  /** The calls since the last time. */
  takeCalls(): string[] {
    return this.calls.splice(0);
  }

  #ask(what: string): void {
    this.calls.push(what);
    if (this.refuses !== undefined && what.startsWith(this.refuses)) throw new Error(`${this.name} refuses to ${what}`);
  }
}

interface Stage {
  readonly memory: GuestMemory;
  readonly tracking: DirtyTracking;
  readonly logs: readonly [Log, Log];
  /** How often logging has ended. */
  readonly stops: () => number;
}

/** RAM at pages 0 to 99 and 200 to 269, a BAR at page 128. */
async function stage(t: ExecutionContext): Promise<Stage> {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: at(100) },
      { start: at(200), length: at(70) },
    ],
  });
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(4) });
  await bar.addMapping({
    range: AddressRange.of(0n, at(4)),
    backing: { file: taggedFile(t, 'bar', 4, 1), offset: 0n },
  });
  await bar.mapToGuest(at(128));
  let stops = 0;
  const tracking = new DirtyTracking(guestAddressSpaceOf(memory), () => void stops++);
  const logs = [new Log('one'), new Log('two')] as const;
  await tracking.join(logs);
  for (const log of logs) log.takeCalls();
  return { memory, tracking, logs, stops: () => stops };
}

function numbers(found: DirtyPages): number[] {
  return [...found.ranges()].flatMap(({ start, length }) =>
    Array.from({ length: Number(length / PAGE) }, (_, n) => Number(start / PAGE) + n),
  );
}

const ALL = pages(0, 300);

test('reports each write once, to any reader', async (t) => {
  const { tracking, logs } = await stage(t);
  const [one, two] = logs;
  one.write(0, 63, 64);
  two.write(64, 99, 200, 269);
  t.deepEqual(numbers(await tracking.readDirty(ALL)), [0, 63, 64, 99, 200, 269]);
  t.deepEqual(numbers(await tracking.readDirty(ALL)), []);
  two.write(64);
  t.deepEqual(numbers(await tracking.readDirty(ALL)), [64]);
});

test('reads whole mappings of RAM alone, and reports pages outside of the requested range later', async (t) => {
  const { tracking, logs } = await stage(t);
  const [one, two] = logs;
  one.write(3, 90);
  two.write(4, 91, 205);
  t.deepEqual(numbers(await tracking.readDirty(pages(4, 70))), [4]);
  for (const log of logs) t.deepEqual(log.takeCalls(), [`read ${pages(0, 100)}`], 'the mapping that contains it');
  one.write(5);
  t.deepEqual(numbers(await tracking.readDirty(pages(3, 1))), [3]);
  t.deepEqual(numbers(await tracking.readDirty(pages(91, 115))), [91, 205]);
  t.deepEqual(numbers(await tracking.readDirty(ALL)), [5, 90]);
  t.deepEqual(numbers(await tracking.readDirty(ALL)), []);
  for (const log of logs) log.takeCalls();
  t.deepEqual(numbers(await tracking.readDirty(pages(120, 60))), []);
  for (const log of logs) t.deepEqual(log.calls, [], 'there is only a BAR');
});

test('pages that were read and not reported stay recorded while the memory is hidden', async (t) => {
  const { memory, tracking, logs } = await stage(t);
  logs[0].write(3, 4);
  t.deepEqual(numbers(await tracking.readDirty(pages(3, 1))), [3]);
  const cover = await memory.regions.addRegion({ name: 'cover', range: pages(0, 100), priority: 200 });
  await cover.addMapping({ range: pages(0, 100), backing: 'private' });
  await cover.mapToGuest();
  t.deepEqual(numbers(await tracking.readDirty(pages(110, 20))), []);
  await cover.unmapFromGuest();
  t.deepEqual(numbers(await tracking.readDirty(ALL)), [4]);
});

test('a read that fails half-way loses no page, also of those that it has cleared in the log', async (t) => {
  const { tracking, logs } = await stage(t);
  const [one, two] = logs;
  one.write(7, 210);
  two.write(8, 211);
  two.refuses = `read ${pages(200, 70)}`;
  await t.throwsAsync(tracking.readDirty(ALL), { message: /^two refuses to read/ });
  two.refuses = undefined;
  const mapping = Array.from({ length: 70 }, (_, page) => 200 + page);
  t.deepEqual(numbers(await tracking.readDirty(ALL)), [7, 8, ...mapping], 'all pages of the mapping that was not read');
  t.deepEqual(numbers(await tracking.readDirty(ALL)), []);
});

test('rejects unaligned ranges, and reads nothing', async (t) => {
  const { tracking, logs } = await stage(t);
  await rejectsCode(t, tracking.readDirty(AddressRange.of(1n, PAGE)), 'ERR_UNALIGNED');
  await rejectsCode(t, tracking.readDirty(AddressRange.of(0n, PAGE / 2n)), 'ERR_UNALIGNED');
  t.deepEqual(
    logs.flatMap(({ calls }) => calls),
    [],
  );
});

test('a new address space logs too; if one cannot log, none of the new ones does', async (t) => {
  const { tracking, logs } = await stage(t);
  const [later, picky, last] = [new Log('later'), new Log('picky'), new Log('last')];
  picky.refuses = 'start';
  await t.throwsAsync(tracking.join([...logs, later, picky, last]), { message: /^picky refuses to start/ });
  t.deepEqual(
    [later, picky, last].map(({ on }) => on),
    [false, false, false],
  );
  t.deepEqual(last.calls, []);
  t.deepEqual(
    logs.map(({ on, calls }) => [on, calls.length]),
    [
      [true, 0],
      [true, 0],
    ],
  );
  await tracking.readDirty(ALL);
  t.deepEqual(later.takeCalls(), ['start', 'stop'], 'nor is it read');

  picky.refuses = undefined;
  await tracking.join([...logs, later, picky]);
  logs[0].write(1);
  picky.write(2);
  later.write(3);
  t.deepEqual(numbers(await tracking.readDirty(ALL)), [1, 2, 3]);
  t.deepEqual(
    logs.map(({ calls }) => calls.filter((call) => call === 'start')),
    [[], []],
    'once each',
  );
});

test('if one cannot log and another cannot stop, no new one is read, and the first error is reported', async (t) => {
  const { tracking } = await stage(t);
  const [stuck, later, picky] = [new Log('stuck'), new Log('later'), new Log('picky')];
  stuck.refuses = 'stop';
  picky.refuses = 'start';
  await t.throwsAsync(tracking.join([stuck, later, picky]), { message: /^picky refuses to start/ });
  await tracking.readDirty(ALL);
  t.deepEqual(stuck.calls, ['start', 'stop']);
  t.deepEqual(later.calls, ['start', 'stop']);
});

test('a removed address space is not called any more, not even to stop', async (t) => {
  const { tracking, logs } = await stage(t);
  const [one, two] = logs;
  two.write(9);
  await tracking.readDirty(pages(0, 1));
  tracking.keep([one]);
  two.takeCalls();
  t.deepEqual(numbers(await tracking.readDirty(ALL)), [9], 'its earlier pages are reported');
  await tracking.stop();
  t.deepEqual(two.calls, []);
  t.false(one.on);
});

test('logging ends once in all address spaces, and stop() can be repeated if it failed', async (t) => {
  const { tracking, logs, stops } = await stage(t);
  const [one, two] = logs;
  two.refuses = 'stop';
  await t.throwsAsync(tracking.stop(), { message: /^two refuses to stop/ });
  t.deepEqual([one.on, two.on, stops()], [false, true, 0]);
  two.refuses = undefined;
  await tracking.stop();
  t.deepEqual([one.on, two.on, stops()], [false, false, 1]);
  t.deepEqual(one.takeCalls(), ['stop']);
  await tracking[Symbol.asyncDispose]();
  t.deepEqual(one.calls, []);
  await t.throwsAsync(tracking.readDirty(ALL), { code: 'ERR_CLOSED' });
});

test('a read waits for the current change', async (t) => {
  const { memory, tracking, logs } = await stage(t);
  logs[0].write(3);
  const region = await memory.regions.addRegion({ name: 'more', range: pages(280, 2) });
  await region.addMapping({ range: pages(0, 2), backing: 'private' });
  const [, found] = await Promise.all([region.mapToGuest(), tracking.readDirty(pages(0, 290))]);
  t.deepEqual(numbers(found), [3]);
  t.true(logs[0].calls.includes(`read ${pages(280, 2)}`), 'and finds the new pages');
});

test('reads of any ranges in any order report each write exactly once', async (t) => {
  const page = fc.oneof(fc.nat(99), fc.integer({ min: 200, max: 269 }));
  const action = fc.oneof(
    fc.record({ log: fc.nat(1), written: fc.array(page, { minLength: 1, maxLength: 8 }) }),
    fc.tuple(fc.nat(299), fc.nat(299)).map(([a, b]) => ({ first: Math.min(a, b), count: Math.abs(a - b) + 1 })),
  );
  const { tracking, logs } = await stage(t);
  const property = fc.asyncProperty(fc.array(action, { maxLength: 20 }), async (actions) => {
    const due = new Set<number>();
    for (const one of [...actions, { first: 0, count: 300 }]) {
      if ('log' in one) {
        logs[one.log]?.write(...one.written);
        for (const written of one.written) due.add(written);
        continue;
      }
      const found = numbers(await tracking.readDirty(pages(one.first, one.count)));
      const wanted = [...due].filter((n) => n >= one.first && n < one.first + one.count).sort((a, b) => a - b);
      if (String(found) !== String(wanted)) throw new Error(`reported ${found.join()} instead of ${wanted.join()}`);
      for (const told of found) due.delete(told);
    }
  });
  await fc.assert(property, { seed: seedOf(t), numRuns: 500 });
  t.pass();
});

test('readDirty of 256 GiB lets the event loop run, and returns the pages around each pause', async (t) => {
  const GiB = 1n << 30n;
  const start = 5n * GiB;
  const memory = await guest(t, { ram: [{ start, length: 256n * GiB }], addressWidth: 40 });
  const tracking = new DirtyTracking(guestAddressSpaceOf(memory), () => {});
  // Around every multiple of 32 GiB, since it pauses every 8 GiB, and at both ends.
  const edges = [start, start + 256n * GiB, ...Array.from({ length: 8 }, (_, part) => BigInt(part + 1) * 32n * GiB)];
  const written = new Set(
    edges.flatMap((edge) => [edge - PAGE, edge]).filter((gpa) => gpa >= start && gpa < start + 256n * GiB),
  );
  const log: DirtyTracker = {
    name: 'log',
    startDirtyTracking: async () => {},
    stopDirtyTracking: async () => {},
    readDirty: async (range) => {
      const pages = new DirtyPages(range, PAGE);
      for (const gpa of written) pages.add(new DirtyPages(AddressRange.of(gpa, PAGE), PAGE, BigUint64Array.of(1n)));
      return pages;
    },
  };
  await tracking.join([log]);
  let turns = 0;
  let immediate = setImmediate(function turn() {
    turns++;
    immediate = setImmediate(turn);
  });
  const dirty = await tracking.readDirty(AddressRange.of(start, 256n * GiB));
  clearImmediate(immediate);
  t.true(turns >= 64, `${turns} turns`);
  const found = new Set([...dirty.ranges()].flatMap((range) => [range.start, range.end - PAGE]));
  t.deepEqual(
    [...found],
    [...written].sort((a, b) => (a < b ? -1 : 1)),
  );
  t.is(dirty.count, written.size);
  written.clear();
  t.true((await tracking.readDirty(AddressRange.of(start, 256n * GiB))).isEmpty, 'each is reported once');
});

test('stops all logs that can be stopped, and those that failed in another call', async (t) => {
  const { tracking, logs, stops } = await stage(t);
  const [one, two] = logs;
  one.refuses = 'stop';
  await t.throwsAsync(tracking.stop(), { message: 'one refuses to stop' });
  t.deepEqual([one.on, two.on, stops()], [true, false, 0]);
  one.refuses = undefined;
  two.takeCalls();
  await tracking.stop();
  t.deepEqual([one.on, two.calls, stops()], [false, [], 1]);
});

test('the log of a closed device counts as stopped', async (t) => {
  const { tracking, logs, stops } = await stage(t);
  logs[0].stopDirtyTracking = () => Promise.reject(new PeerDmaError('ERR_CLOSED', 'the device is closed'));
  await tracking.stop();
  t.deepEqual([logs[1].on, stops()], [false, 1]);
});
