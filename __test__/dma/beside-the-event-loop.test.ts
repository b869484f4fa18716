/**
 * Work of IOMMU address spaces on worker threads: reports meanwhile, and failures of the native core. Containers and
 * address spaces of the native core are stubs here.
 */
import test from 'ava';
import { AddressRange, type DmaMapperHandle } from '../../ts/index.ts';
import { IommufdTarget } from '../../ts/vfio/iommufd/iommufd-target.ts';
import { MemoryOfDevice } from '../support/device-file.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, pages } from '../support/pages.ts';
import { until } from '../support/until.ts';
import {
  NativeSpaceStub,
  type Port,
  abandon,
  join,
  ports,
  refusal,
  regionOf,
  states,
  stuck,
} from './native-space-stub.ts';

const LARGE = 64n << 20n;

for (const [what, call, begin] of [
  ['unmapping much', 'unmapAsync', (_, handle) => handle.remove()],
  ['reading dirty pages', 'dirtyPages', (port) => port.readDirty(AddressRange.of(0n, LARGE))],
  ['starting to log', 'setDirtyTracking', (port) => port.startDirtyTracking(() => {})],
  ['ending to log', 'setDirtyTracking', (port) => port.stopDirtyTracking()],
] as [string, string, (port: Port, handle: DmaMapperHandle) => Promise<unknown>][]) {
  test(`reports the IOVAs from before ${what} until it ends`, async (t) => {
    for (const [stub, port] of ports()) {
      const memory = await guest(t, { ram: [{ start: 0n, length: LARGE, prefault: false }] });
      const handle = await stub.settle(join(t, memory, [stub, port]));
      const ranges = port.iovaRanges();
      t.is(stub.takeCalls().at(-1), 'info');
      const done = begin(port, handle);
      await until(() => stub.isAtWork, `${call} on a worker thread`);
      t.deepEqual(stub.takeCalls().slice(-1), [call]);
      t.deepEqual(port.iovaRanges(), ranges);
      t.deepEqual(stub.takeCalls(), [], "the kernel's later answer");
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
    const stub = new NativeSpaceStub();
    const memory = await guest(t, {});
    const device = new MemoryOfDevice(t, 'device', count);
    const bar = memory.newDeviceMemory({ name: 'bar', length: at(count) });
    await bar.addMapping({ range: AddressRange.of(0n, at(count)), backing: { file: device.file, offset: 0n } });
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
      await stub.settle(region.mapToGuest());
      await stub.settle(region.unmapFromGuest());
      t.deepEqual(
        stub.takeCalls().filter((call) => call !== 'info'),
        calls,
      );
      await stub.settle(handle.remove());
    }
  }
});

test('reads dirty pages before it unmaps while writes are logged', async (t) => {
  const stub = new NativeSpaceStub();
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

test('quarantines a mapping whose dirty pages cannot be read, and unmaps the others', async (t) => {
  const stub = new NativeSpaceStub();
  const port = new IommufdTarget(stub as never, 'ioas', true);
  const memory = await guest(t);
  const region = await regionOf(t, memory, 3);
  await region.mapToGuest();
  const handle = await join(t, memory, [stub, port]);
  const found: bigint[] = [];
  await stub.settle(port.startDirtyTracking((dirty) => found.push(dirty.range.start / at(1))));
  stub.unreadable = at(1);
  await rejectsCode(t, stub.settle(handle.remove()), 'ERR_UNMAP_FAILED');
  t.deepEqual(found, [2n, 1n, 0n]); // of the one that cannot be read: all its pages
  t.deepEqual(stub.unmapped, [2n, 0n]);
  t.deepEqual(states(handle), [[1n, 'quarantined']]);
  await abandon(memory, port);
});

test('maps mappings again that were unmapped before one whose dirty pages cannot be read', async (t) => {
  const stub = new NativeSpaceStub();
  const port = new IommufdTarget(stub as never, 'ioas', true);
  const memory = await guest(t);
  const region = await regionOf(t, memory, 3);
  await region.mapToGuest();
  const handle = await join(t, memory, [stub, port]);
  await stub.settle(port.startDirtyTracking(() => {}));
  stub.unreadable = at(1);
  await rejectsCode(t, stub.settle(region.unmapFromGuest()), 'ERR_UNMAP_FAILED');
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
  test(`quarantines exactly the mappings of a batch that the native core could not unmap again ${how}`, async (t) => {
    for (const [stub, port] of ports()) {
      const memory = await guest(t);
      const region = await regionOf(t, memory, count);
      const handle = await stub.settle(join(t, memory, [stub, port]));
      stub.mapFailures = [refusal(3, stuck(2), stuck(0))];
      const error = await rejectsCode(t, stub.settle(region.mapToGuest()), 'ERR_ROLLBACK_FAILED');
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
    const error = await rejectsCode(t, region.mapToGuest(), 'ERR_MAPPING_LIMIT');
    t.deepEqual(error.range, pages(3, 1));
    t.deepEqual(states(handle), []);
    t.deepEqual(stub.unmapped, []);
    await handle.remove();
  }
});

test('quarantines exactly the mappings that the native core could not unmap', async (t) => {
  for (const [stub, port] of ports()) {
    const memory = await guest(t);
    const region = await regionOf(t, memory, 4);
    await region.mapToGuest();
    const handle = await join(t, memory, [stub, port]);
    stub.unmapFailures = [[stuck(0), stuck(2)]]; // of the pages 3, 2, 1, 0
    await rejectsCode(t, handle.remove(), 'ERR_UNMAP_FAILED');
    t.deepEqual(stub.unmapped, [3n, 2n, 1n, 0n]);
    t.deepEqual(states(handle), [
      [1n, 'quarantined'],
      [3n, 'quarantined'],
    ]);
    await abandon(memory, port);
  }
});
