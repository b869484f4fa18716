/**
 * What IOMMU address spaces of the kernel leave to worker threads, what they report meanwhile, and what becomes of
 * failures of the native core. Containers and address spaces of the native core are stubs here: they record which calls
 * are made of them.
 */
import type { NativeFailure } from '#native';
import test, { type ExecutionContext } from 'ava';
import { AddressRange, type DmaMapperHandle, type GuestMemory, type Region } from '../../ts/index.ts';
import { joinPort } from '../../ts/guest/dma-mapper-client.ts';
import { addressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { IommufdTarget } from '../../ts/vfio/iommufd/iommufd-target.ts';
import { Type1Target } from '../../ts/vfio/type1/type1-target.ts';
import { MemoryOfDevice } from '../support/device-file.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, pages, taggedFile } from '../support/pages.ts';
import { until } from '../support/until.ts';

const LARGE = 64n << 20n;

/** Answers every call at once, but for those on worker threads, which end when `finish` is called. */
class Stub {
  readonly calls: string[] = [];
  /** First pages of the ranges that were unmapped, or were to be. */
  readonly unmapped: bigint[] = [];
  /** What the next call of `map` returns, and the next of `unmap`. */
  mapFailures: NativeFailure[] = [];
  unmapFailures: NativeFailure[] = [];
  /** Where reading dirty pages fails. */
  unreadable: bigint | undefined;
  #finish: (() => void)[] = [];
  #waits = true;

  /** Whether a call on a worker thread has not ended. */
  get isAtWork(): boolean {
    return this.#finish.length > 0;
  }

  finish(): void {
    for (const end of this.#finish.splice(0)) end();
  }

  /** Ends all calls, and later ones at once: a test that fails can close its guest memory then. */
  release(): void {
    this.#waits = false;
    this.finish();
  }

  /** Ends calls until a promise settles. */
  async settle<T>(promise: Promise<T>): Promise<T> {
    let settled = false;
    const end = (): void => void (settled = true);
    promise.then(end, end);
    await until(() => {
      this.finish();
      return settled;
    }, 'all calls end');
    return promise;
  }

  takeCalls(): string[] {
    return this.calls.splice(0);
  }

  info() {
    this.calls.push('info');
    return { alignment: 4096n, pageSizes: 4096n, iovaRanges: BigUint64Array.of(0n, 1n << 48n) };
  }

  map(): NativeFailure[] {
    this.calls.push('map');
    return this.mapFailures.splice(0);
  }

  mapAsync(): Promise<NativeFailure[]> {
    return this.#later('mapAsync', this.mapFailures.splice(0));
  }

  unmap(ranges: BigUint64Array): NativeFailure[] {
    this.calls.push('unmap');
    for (let index = 0; index < ranges.length; index += 2) this.unmapped.push((ranges[index] ?? 0n) / at(1));
    return this.unmapFailures.splice(0);
  }

  unmapAsync(): Promise<NativeFailure[]> {
    return this.#later('unmapAsync', this.unmapFailures.splice(0));
  }

  setDirtyTracking(): Promise<void> {
    return this.#later('setDirtyTracking', undefined);
  }

  async dirtyPages(iova: bigint): Promise<BigUint64Array> {
    await this.#later('dirtyPages', undefined);
    if (iova === this.unreadable) throw new Error('ERR_SYSTEM|EIO|ioctl(READ)||the log can not be read');
    return BigUint64Array.of(4n);
  }

  #later<T>(call: string, result: T): Promise<T> {
    this.calls.push(call);
    if (!this.#waits) return Promise.resolve(result);
    return new Promise((resolve) => this.#finish.push(() => resolve(result)));
  }
}

type Port = Type1Target | IommufdTarget;

function ports(): [Stub, Port][] {
  const [container, ioas] = [new Stub(), new Stub()];
  return [
    [container, new Type1Target(container as never, 'container')],
    [ioas, new IommufdTarget(ioas as never, 'ioas', true)],
  ];
}

function join(t: ExecutionContext, memory: GuestMemory, [stub, port]: [Stub, Port]): Promise<DmaMapperHandle> {
  t.teardown(() => stub.release()); // before the memory is closed
  return joinPort(addressSpaceOf(memory), port, 'best-effort');
}

/** An inactive region with `count` mappings of a page each, at its start. */
async function regionOf(t: ExecutionContext, memory: GuestMemory, count: number): Promise<Region> {
  const file = taggedFile(t, 'ram', count, 0);
  const region = await memory.regions.addRegion({ name: 'region', range: pages(0, count) });
  for (let page = 0; page < count; page++) {
    await region.addMapping({ range: pages(page, 1), backing: { file, offset: at(page) } });
  }
  return region;
}

/** First page and state of each mapping. */
function states(handle: DmaMapperHandle): [bigint, string][] {
  return handle.status().map(({ range, state }) => [range.start / at(1), state]);
}

/** Ends the test of a target that has something in quarantine. */
function abandon(memory: GuestMemory, port: Port): Promise<void> {
  return addressSpaceOf(memory).targetClosed(port);
}

const refusal = (index: number): NativeFailure => ({ index, reason: 'ERR_MAP_FAILED|ENOSPC|ioctl(MAP)||no room' });
const stuck = (index: number): NativeFailure => ({ index, reason: 'ERR_UNMAP_FAILED|EINVAL|ioctl(UNMAP)||no' });

for (const [what, call, begin] of [
  ['unmapping much', 'unmapAsync', (_, handle) => handle.remove()],
  ['reading dirty pages', 'dirtyPages', (port) => port.readDirty(AddressRange.of(0n, LARGE))],
  ['starting to log', 'setDirtyTracking', (port) => port.startDirtyTracking(() => {})],
  ['ending to log', 'setDirtyTracking', (port) => port.stopDirtyTracking()],
] as [string, string, (port: Port, handle: DmaMapperHandle) => Promise<unknown>][]) {
  test(`reports the IOVAs from before ${what} until that is done`, async (t) => {
    for (const [stub, port] of ports()) {
      const memory = await guest(t, { ram: [{ start: 0n, length: LARGE, prefault: false }] });
      const handle = await stub.settle(join(t, memory, [stub, port]));
      const ranges = port.iovaRanges();
      t.is(stub.takeCalls().at(-1), 'info');
      const done = begin(port, handle);
      await until(() => stub.isAtWork, `${call} on a worker thread`);
      t.deepEqual(stub.takeCalls().slice(-1), [call]);
      t.deepEqual(port.iovaRanges(), ranges);
      t.deepEqual(stub.takeCalls(), [], 'the kernel would answer at the end of that');
      await stub.settle(done);
      stub.takeCalls();
      t.deepEqual(port.iovaRanges(), ranges);
      t.deepEqual(stub.takeCalls(), ['info']);
      await stub.settle(handle.remove());
    }
  });
}

test('maps a large BAR into an address space of iommufd on a worker thread', async (t) => {
  for (const [count, call] of [
    [1, 'map'],
    [1024, 'mapAsync'],
  ] as const) {
    const stub = new Stub();
    const memory = await guest(t, {});
    const device = new MemoryOfDevice(t, 'device', count);
    const bar = memory.newDeviceMemory({ name: 'bar', length: at(count) });
    await bar.map({ offset: 0n, length: at(count), backing: { file: device.file, offset: 0n } });
    await bar.mapToGuest(at(4096));
    const handle = await stub.settle(join(t, memory, [stub, new IommufdTarget(stub as never, 'ioas', true)]));
    t.true(stub.calls.includes(call));
    t.deepEqual(
      handle.status().map(({ state }) => state),
      ['mapped'],
    );
    await stub.settle(handle.remove());
  }
});

test('maps and unmaps more than 256 small mappings on a worker thread, and fewer at once', async (t) => {
  for (const [count, calls] of [
    [256, ['map', 'unmap']],
    [257, ['mapAsync', 'unmapAsync']],
  ] as const) {
    for (const [stub, port] of ports()) {
      const memory = await guest(t);
      const region = await regionOf(t, memory, count);
      const handle = await stub.settle(join(t, memory, [stub, port]));
      await stub.settle(region.map());
      await stub.settle(region.unmap());
      t.deepEqual(
        stub.takeCalls().filter((call) => call !== 'info'),
        calls,
      );
      await stub.settle(handle.remove());
    }
  }
});

test('reads what was written before it unmaps, while writes are logged', async (t) => {
  const stub = new Stub();
  const port = new IommufdTarget(stub as never, 'ioas', true);
  const memory = await guest(t, { ram: [{ start: 0n, length: at(1) }] });
  const handle = await join(t, memory, [stub, port]);
  const found: bigint[] = [];
  await stub.settle(port.startDirtyTracking((dirty) => found.push(dirty.range.length)));
  stub.takeCalls();
  const removed = handle.remove();
  await until(() => stub.isAtWork, 'dirty pages are read');
  t.deepEqual(stub.takeCalls(), ['dirtyPages']);
  await stub.settle(removed);
  t.deepEqual([stub.takeCalls(), found], [['unmap'], [0x1000n]]);
});

test('quarantines a mapping whose dirty pages can not be read, and unmaps the others', async (t) => {
  const stub = new Stub();
  const port = new IommufdTarget(stub as never, 'ioas', true);
  const memory = await guest(t);
  const region = await regionOf(t, memory, 3);
  await region.map();
  const handle = await join(t, memory, [stub, port]);
  const found: bigint[] = [];
  await stub.settle(port.startDirtyTracking((dirty) => found.push(dirty.range.start / at(1))));
  stub.unreadable = at(1);
  await rejectsCode(t, stub.settle(handle.remove()), 'ERR_UNMAP_FAILED');
  t.deepEqual(found, [2n, 0n]);
  t.deepEqual(stub.unmapped, [2n, 0n]);
  t.deepEqual(states(handle), [[1n, 'quarantined']]);
  await abandon(memory, port);
});

test('maps again what was unmapped before a mapping whose dirty pages can not be read', async (t) => {
  const stub = new Stub();
  const port = new IommufdTarget(stub as never, 'ioas', true);
  const memory = await guest(t);
  const region = await regionOf(t, memory, 3);
  await region.map();
  const handle = await join(t, memory, [stub, port]);
  await stub.settle(port.startDirtyTracking(() => {}));
  stub.unreadable = at(1);
  await rejectsCode(t, stub.settle(region.unmap()), 'ERR_UNMAP_FAILED');
  t.deepEqual(stub.unmapped, [0n]);
  t.deepEqual(states(handle), [
    [0n, 'mapped'],
    [1n, 'quarantined'],
    [2n, 'mapped'],
  ]);
  await abandon(memory, port);
});

for (const [count, how] of [
  [4, 'at once'],
  [300, 'on a worker thread'],
] as const) {
  test(`quarantines only what the native core could not unmap again of a batch ${how}`, async (t) => {
    for (const [stub, port] of ports()) {
      const memory = await guest(t);
      const region = await regionOf(t, memory, count);
      const handle = await stub.settle(join(t, memory, [stub, port]));
      stub.mapFailures = [refusal(3), stuck(2), stuck(0)];
      const error = await rejectsCode(t, stub.settle(region.map()), 'ERR_ROLLBACK_FAILED');
      t.deepEqual(error.range, pages(3, 1), 'the range that could not be mapped');
      t.deepEqual(states(handle), [
        [0n, 'quarantined'],
        [2n, 'quarantined'],
      ]);
      t.deepEqual(stub.unmapped, [], 'the native core has unmapped the rest');
      await abandon(memory, port);
    }
  });
}

test('quarantines nothing of a batch that the native core has unmapped again', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, 4);
    const handle = await join(t, memory, [stub, port]);
    stub.mapFailures = [refusal(3)];
    const error = await rejectsCode(t, region.map(), 'ERR_MAPPING_LIMIT');
    t.deepEqual(error.range, pages(3, 1));
    t.deepEqual(states(handle), []);
    t.deepEqual(stub.unmapped, []);
    await handle.remove();
  }
});

test('quarantines what the native core could not unmap, and nothing else', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, 4);
    await region.map();
    const handle = await join(t, memory, [stub, port]);
    stub.unmapFailures = [stuck(0), stuck(2)]; // of the pages 3, 2, 1, 0
    await rejectsCode(t, handle.remove(), 'ERR_UNMAP_FAILED');
    t.deepEqual(stub.unmapped, [3n, 2n, 1n, 0n]);
    t.deepEqual(states(handle), [
      [1n, 'quarantined'],
      [3n, 'quarantined'],
    ]);
    await abandon(memory, port);
  }
});
