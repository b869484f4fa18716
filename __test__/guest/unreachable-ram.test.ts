// RAM at addresses that a target cannot map is rejected before any of it is faulted in.
import { fstatSync } from 'node:fs';
import test from 'ava';
import { AddressRange, MemoryFile, type PeerDmaError } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

const MSI_WINDOW = 0xfee0_0000n;

/** The bytes of a file that have pages. */
function present(file: MemoryFile): number {
  return fstatSync(file.fd).blocks * 512;
}

class Narrow extends RecordingTarget {
  ranges: readonly AddressRange[] = [];
  iovaRanges(): readonly AddressRange[] {
    return this.ranges;
  }
}

function checkError(t: Parameters<typeof guest>[0], error: PeerDmaError, target: string): void {
  t.is(error.target, target);
  t.is(String(error.range), '0xfed00000..0xff000000');
  t.is(error.errno, 'EINVAL', 'the error of the kernel');
  t.regex(
    error.message,
    /cannot map "r(am0)?" at 0xfed00000\.\.0xff000000.*Place it within one of 0x0\.\.0xfee00000, /,
  );
}

for (const rules of ['type1v2', 'iommufd'] as const) {
  test(`a target does not join over RAM that it cannot map, and none of the RAM is faulted in: ${rules}`, async (t) => {
    using file = MemoryFile.create(0x30_0000n, { name: 'ram' });
    const ram = [{ start: MSI_WINDOW - 0x10_0000n, length: file.length, file }];
    const memory = await guest(t, { ram });
    const join = memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'late', rules }));
    checkError(t, await rejectsCode(t, join, 'ERR_IOVA_UNREACHABLE'), 'late');
    t.is(present(file), 0);
    t.deepEqual(memory.inspect().targets, []);
  });

  test(`a change with RAM that a target cannot map fails, and none of the RAM is faulted in: ${rules}`, async (t) => {
    const memory = await guest(t);
    await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'first', needsVa: true }));
    await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'second', rules }));
    using file = MemoryFile.create(0x30_0000n, { name: 'ram' });
    const range = AddressRange.of(MSI_WINDOW - 0x10_0000n, file.length);
    const region = await memory.regions.addRegion({ name: 'r', range });
    await region.addMapping({ range: AddressRange.of(0n, file.length), backing: { file, offset: 0n } });
    checkError(t, await rejectsCode(t, region.mapToGuest(), 'ERR_IOVA_UNREACHABLE'), 'second');
    t.is(present(file), 0);
    t.deepEqual(memory.inspect().flat, []);
  });
}

test('required device memory out of reach is rejected before RAM of the same change is faulted in', async (t) => {
  const memory = await guest(t);
  const target = new Narrow({ name: 'narrow', needsVa: true });
  target.ranges = [pages(0, 8)];
  await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  t.is((await rejectsCode(t, bar.mapToGuest(at(8)), 'ERR_IOVA_UNREACHABLE')).target, 'narrow');
  t.deepEqual(target.takeCalls(), [], 'it was not called');
  await bar.mapToGuest(at(7));
  t.deepEqual(target.heldText(), ['0x7000..0x8000 rw bar']);
});

test('a target without IOVA ranges is called for each mapping', async (t) => {
  const memory = await guest(t, { ram: [{ start: at(8), length: PAGE }] });
  const target = new Narrow({ name: 'unknown' });
  await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(target.heldText(), ['0x8000..0x9000 rw ram0']);
});

test('private RAM is rejected by a target that maps files before it is faulted in', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE, private: true }] });
  const target = new RecordingTarget({ needsVa: true, accepts: { backing: 'file' } });
  const before = process.memoryUsage.rss();
  const big = await memory.regions.addRegion({ name: 'big', range: AddressRange.of(1n << 30n, 256n << 20n) });
  await big.addMapping({ range: AddressRange.of(0n, 256n << 20n), backing: 'private' });
  await big.mapToGuest();
  await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_FILE_REQUIRED');
  t.true(process.memoryUsage.rss() - before < 200 << 20);
});
