// Memory shared by a driver and its device.
import test from 'ava';
import { fstatSync, readdirSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { AddressRange, GuestMemory } from '../../ts/index.ts';
import { DmaBuffer } from '../../ts/driver.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { openFile, openFiles } from '../support/open-files.ts';
import { RecordingTarget } from '../support/recording-target.ts';
import { until } from '../support/until.ts';

const PAGE = 4096n;

test('shares bytes with the device until it is closed', async (t) => {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  for (const rules of ['type1v2', 'iommufd'] as const) {
    const iommu = new SimulatedIommu({ rules });
    const handle = await memory.dmaMappers.addDmaMapper(iommu);
    const buffer = await DmaBuffer.allocate(memory, 100n, { name: 'ring' });
    t.is(buffer.length, 100n);
    t.is(buffer.bytes.length, 100);
    t.true(buffer.bytes.every((byte) => byte === 0));
    buffer.bytes.set([1, 2, 3], 50);
    t.deepEqual(iommu.read(buffer.iova + 50n, 3), Uint8Array.of(1, 2, 3));
    iommu.write(buffer.iova + 99n, Uint8Array.of(4));
    t.is(buffer.bytes[99], 4);
    t.like(memory.inspect().flat, [{ region: 'ring', writable: true }]);
    await buffer.close();
    await buffer.close();
    t.deepEqual(iommu.mappings(), []);
    t.deepEqual(memory.inspect().regions, []);
    t.is(buffer.bytes[99], 4, 'still to be read');
    await handle.remove();
  }
});

test('allocates a separate IOVA that every target can map, outside of all regions', async (t) => {
  const ram = { start: 0n, length: 64n << 20n };
  await using memory = await GuestMemory.create({ ram: [ram], addressWidth: 40 });
  const narrow = new SimulatedIommu({
    iovaRanges: [AddressRange.between(0n, 0xfee0_0000n), AddressRange.between(0xfef0_0000n, 1n << 39n)],
  });
  await memory.dmaMappers.addDmaMapper(narrow);
  await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'wide' }));
  await memory.dmaMappers.addDmaMapper(new RecordingTarget()); // its ranges are unknown
  const all = await Promise.all(Array.from({ length: 20 }, () => DmaBuffer.allocate(memory, 3n * PAGE)));
  const ranges = all.map(({ iova }) => AddressRange.of(iova, 3n * PAGE));
  for (const [index, one] of ranges.entries()) {
    t.true(one.end <= 1n << 39n);
    t.false(ranges.some((other, at) => at !== index && other.overlaps(one)));
  }
  const aligned = await DmaBuffer.allocate(memory, 1n, { alignment: 1n << 30n });
  t.is(aligned.iova % (1n << 30n), 0n);
  const low = await DmaBuffer.allocate(memory, PAGE, { addressWidth: 32 });
  t.true(low.iova < 1n << 32n && low.iova >= ram.length);
  t.false(AddressRange.of(low.iova, PAGE).overlaps(AddressRange.between(0xfee0_0000n, 0xfef0_0000n)));
  t.is(narrow.mappings().length, 1 + 20 + 2);
  t.is(
    narrow.mappings().reduce((sum, { range }) => sum + range.length, 0n),
    ram.length + (20n * 3n + 2n) * PAGE,
    'whole pages, and only those that it uses',
  );
});

test('leaves nothing allocated if there is no free range, or a target fails', async (t) => {
  await using memory = await GuestMemory.create({ ram: [{ start: PAGE, length: 3n * PAGE }], addressWidth: 14 });
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const error = await rejectsCode(t, DmaBuffer.allocate(memory, PAGE), 'ERR_IOVA_UNREACHABLE');
  t.regex(error.message, /14 bits/, 'page 0 is not used');
  await rejectsCode(t, DmaBuffer.allocate(memory, PAGE, { addressWidth: 40 }), 'ERR_IOVA_UNREACHABLE');
  await using roomy = await GuestMemory.create();
  const refusing = new RecordingTarget();
  await roomy.dmaMappers.addDmaMapper(refusing);
  refusing.judge = ({ op }) => (op === 'map' ? new Error('no') : undefined);
  await rejectsCode(t, DmaBuffer.allocate(roomy, PAGE), 'ERR_MAP_FAILED');
  t.deepEqual([roomy.inspect().regions, refusing.held()], [[], []]);
  refusing.judge = () => undefined;
  const buffer = await DmaBuffer.allocate(roomy, PAGE);
  refusing.judge = ({ op }) => (op === 'unmap' ? new Error('no') : undefined);
  await rejectsCode(t, buffer.close(), 'ERR_UNMAP_FAILED');
  refusing.judge = () => undefined;
  refusing.closeWithMappings();
  await roomy.dmaMappers.targetClosed(refusing);
  await buffer.close();
  t.deepEqual(roomy.inspect().regions, []);
});

test('rejects an invalid length, alignment, address width and guest memory', async (t) => {
  await using memory = await GuestMemory.create();
  await rejectsCode(t, DmaBuffer.allocate(memory, 0n), 'ERR_EMPTY_RANGE');
  await rejectsCode(t, DmaBuffer.allocate(memory, -1n), 'ERR_INVALID_ARGUMENT');
  for (const alignment of [0n, 1n, 3n * PAGE, 4096 as never])
    await rejectsCode(t, DmaBuffer.allocate(memory, PAGE, { alignment }), 'ERR_INVALID_ARGUMENT');
  for (const addressWidth of [0, 65, 32.5, '32' as never])
    await rejectsCode(t, DmaBuffer.allocate(memory, PAGE, { addressWidth }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, DmaBuffer.allocate({} as never, PAGE), 'ERR_INVALID_ARGUMENT');
  const late = await DmaBuffer.allocate(memory, PAGE);
  await memory.close();
  await late.close();
  await rejectsCode(t, DmaBuffer.allocate(memory, PAGE), 'ERR_CLOSED');
});

test.serial('holds a file as long as the buffer exists', async (t) => {
  await using memory = await GuestMemory.create();
  const files = (): number => openFiles().filter((file) => file.includes('memfd:dma-buffers')).length;
  const options = { name: 'counted' };
  const buffer = await DmaBuffer.allocate(memory, PAGE, options);
  t.is(files(), 1);
  await buffer.close();
  t.is(files(), 0);
  await rejectsCode(t, DmaBuffer.allocate(memory, PAGE, { ...options, alignment: 1n << 60n }), 'ERR_IOVA_UNREACHABLE');
  t.is(files(), 0);
});

test.serial('takes one descriptor for any number of buffers', async (t) => {
  await using memory = await GuestMemory.create();
  const before = openFiles().length;
  const buffers: DmaBuffer[] = [];
  for (let index = 0; index < 300; index++) buffers.push(await DmaBuffer.allocate(memory, PAGE));
  t.is(openFiles().length, before + 1);
  buffers.forEach(({ bytes }, index) => bytes.fill(index));
  buffers.forEach(({ bytes }, index) => t.true(bytes.every((byte) => byte === (index & 0xff))));
  for (const buffer of buffers) await buffer.close();
  t.is(openFiles().length, before);
});

test.serial('releases the memory of a buffer when it is closed and its bytes are garbage-collected', async (t) => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  await using memory = await GuestMemory.create();
  const kept = await DmaBuffer.allocate(memory, PAGE);
  const used = (): number => {
    const fd = readdirSync('/proc/self/fd').find((name) => openFile(name).includes('memfd:dma-buffers'));
    return fstatSync(Number(fd)).blocks * 512;
  };
  const fill = async (): Promise<DmaBuffer> => {
    const buffer = await DmaBuffer.allocate(memory, 1n << 20n);
    buffer.bytes.fill(1);
    return buffer;
  };
  await fill().then((buffer) => buffer.close());
  await until(() => {
    collect();
    return used() < 1 << 20;
  }, 'the memory is back');
  const again = await fill();
  t.true(used() >= 1 << 20, 'a buffer that is open keeps it');
  const { iova } = again;
  const fresh = await DmaBuffer.allocate(memory, 1n << 20n);
  t.true(fresh.bytes.every((byte) => byte === 0));
  t.not(fresh.iova, iova);
  for (const buffer of [kept, again, fresh]) await buffer.close();
});

test('allocates a low address, so that an IOMMU with few bits can join later', async (t) => {
  await using memory = await GuestMemory.create();
  await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'wide' }));
  const all = [await DmaBuffer.allocate(memory, PAGE), await DmaBuffer.allocate(memory, 3n * PAGE)];
  t.deepEqual(
    all.map(({ iova }) => iova),
    [PAGE, 2n * PAGE],
    'page 0 is not used',
  );
  for (const bits of [39n, 32n, 20n]) {
    const iovaRanges = [AddressRange.between(0n, 1n << bits)];
    const narrow = new SimulatedIommu({ name: `${bits} bits`, iovaRanges });
    await memory.dmaMappers.addDmaMapper(narrow);
    t.is(narrow.mappings().length, 2);
  }
  await all[0]?.close();
  t.is((await DmaBuffer.allocate(memory, PAGE)).iova, PAGE, 'free addresses are used again');
});

test('allocates outside the RAM and the BARs of a guest, within 39 bits', async (t) => {
  const GiB = 1n << 30n;
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: 64n << 20n }] });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  const buffer = await DmaBuffer.allocate(memory, PAGE);
  t.true(buffer.iova >= 64n * GiB, 'away from the windows of 32-bit BARs and from the addresses after RAM');
  t.true(buffer.iova < 500n * GiB);
  const low = await DmaBuffer.allocate(memory, PAGE, { addressWidth: 36 });
  t.true(low.iova >= 4n * GiB, 'as high as the device can reach');
  const lowest = await DmaBuffer.allocate(memory, PAGE, { addressWidth: 32 });
  t.true(lowest.iova >= 64n << 20n && lowest.iova < 4n * GiB);
  await bar.remove();
});

test('keeps the bytes readable after the buffer and its guest memory are closed', async (t) => {
  const memory = await GuestMemory.create();
  const { bytes } = await DmaBuffer.allocate(memory, PAGE);
  await memory.close();
  bytes[5] = 7;
  t.is(structuredClone(bytes, { transfer: [bytes.buffer] })[5], 7);
});
