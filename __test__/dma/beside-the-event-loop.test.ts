/**
 * What the targets of real IOMMUs leave to worker threads, and what they report meanwhile. Containers and address
 * spaces are stubs here: they record which calls are made of them.
 */
import test from 'ava';
import { AddressRange } from '../../ts/index.ts';
import { IommufdTarget } from '../../ts/vfio/iommufd/iommufd-target.ts';
import { Type1Target } from '../../ts/vfio/type1/type1-target.ts';
import { MemoryOfDevice } from '../support/device-file.ts';
import { at, guest } from '../support/pages.ts';

const LARGE = AddressRange.of(0n, 64n << 20n);

/** Answers every call at once, but for those on worker threads, which end when `finish` is called. */
class Stub {
  readonly calls: string[] = [];
  #finish: (() => void)[] = [];

  finish(): void {
    for (const end of this.#finish.splice(0)) end();
  }

  takeCalls(): string[] {
    return this.calls.splice(0);
  }

  info() {
    this.calls.push('info');
    return { alignment: 4096n, pageSizes: 4096n, iovaRanges: BigUint64Array.of(0n, 1n << 48n) };
  }

  map(): void {
    this.calls.push('map');
  }

  unmap(): void {
    this.calls.push('unmap');
  }

  mapAsync(): Promise<void> {
    return this.#later('mapAsync', undefined);
  }

  unmapAsync(): Promise<void> {
    return this.#later('unmapAsync', undefined);
  }

  unmapDmaAsync(): Promise<void> {
    return this.#later('unmapAsync', undefined);
  }

  setDirtyTracking(): Promise<void> {
    return this.#later('setDirtyTracking', undefined);
  }

  dirtyPages(): Promise<BigUint64Array> {
    return this.#later('dirtyPages', BigUint64Array.of(4n));
  }

  #later<T>(call: string, result: T): Promise<T> {
    this.calls.push(call);
    return new Promise((resolve) => this.#finish.push(() => resolve(result)));
  }
}

function targets(): [Stub, Type1Target | IommufdTarget][] {
  const [container, ioas] = [new Stub(), new Stub()];
  return [
    [container, new Type1Target(container as never, 'container')],
    [ioas, new IommufdTarget(ioas as never, 'ioas', true)],
  ];
}

for (const [what, begin] of [
  ['unmapping much', (target) => target.unmapDma(LARGE)],
  ['reading dirty pages', (target) => target.readDirty(LARGE)],
  ['starting to log', (target) => target.startDirtyTracking(() => {})],
  ['ending to log', (target) => target.stopDirtyTracking()],
] as [string, (target: Type1Target | IommufdTarget) => unknown][]) {
  test(`reports the IOVAs from before ${what} until that is done`, async (t) => {
    for (const [stub, target] of targets()) {
      const ranges = target.iovaRanges();
      const done = begin(target);
      t.true(stub.takeCalls().includes('info'));
      t.deepEqual(target.iovaRanges(), ranges);
      t.deepEqual(stub.takeCalls(), [], 'the kernel would answer at the end of that');
      stub.finish();
      await done;
      t.deepEqual(target.iovaRanges(), ranges);
      t.deepEqual(stub.takeCalls(), ['info']);
    }
  });
}

test('maps a large BAR into an address space of iommufd on a worker thread', async (t) => {
  for (const [pages, call] of [
    [1, 'map'],
    [1024, 'mapAsync'],
  ] as const) {
    const stub = new Stub();
    const memory = await guest(t, {});
    const device = new MemoryOfDevice(t, 'device', pages);
    const bar = memory.newDeviceMemory({ name: 'bar', length: at(pages) });
    await bar.map({ offset: 0n, length: at(pages), backing: { file: device.file, offset: 0n } });
    await bar.mapToGuest(at(4096));
    const adding = memory.dmaMappers.addDmaMapper(new IommufdTarget(stub as never, 'ioas', true));
    while (!stub.calls.includes(call)) await new Promise(setImmediate);
    stub.finish();
    const handle = await adding;
    t.deepEqual(
      handle.status().map(({ state }) => state),
      ['mapped'],
    );
    const removed = handle.remove();
    await new Promise(setImmediate);
    stub.finish();
    await removed;
  }
});

test('reads what was written before it unmaps, while writes are logged', async (t) => {
  const stub = new Stub();
  const target = new IommufdTarget(stub as never, 'ioas', true);
  const page = AddressRange.of(0n, 0x1000n);
  const found: bigint[] = [];
  const started = target.startDirtyTracking((pages) => found.push(pages.range.length));
  stub.finish();
  await started;
  stub.takeCalls();
  const unmapped = target.unmapDma(page);
  t.deepEqual(stub.takeCalls(), ['dirtyPages']);
  stub.finish();
  await unmapped;
  t.deepEqual([stub.takeCalls(), found], [['unmap'], [0x1000n]]);
});
