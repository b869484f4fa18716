// The file of a DmaMapRequest stays open while the memory is mapped, also after its owner closes it.
import { fstatSync } from 'node:fs';
import test from 'ava';
import { type DmaMapRequest, GuestMemory, MemoryFile } from '../../ts/index.ts';
import { DmaBuffer } from '../../ts/driver.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

function fileOf(request: DmaMapRequest | undefined): MemoryFile {
  if (typeof request?.backing !== 'object') throw new Error('the request has no file');
  return request.backing.file;
}

/** Guest memory with a page of a file at page 4 that its owner has closed. */
async function withClosedFile(t: Parameters<typeof guest>[0]): Promise<{ memory: GuestMemory; file: MemoryFile }> {
  const memory = await guest(t);
  const file = taggedFile(t, 'closed early', 3, 0x40);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 3) });
  await region.addMapping({ range: pages(0, 3), backing: { file, offset: 0n } });
  await region.mapToGuest();
  file.close();
  return { memory, file };
}

test('a target that joins late gets an open file although the owner has closed it', async (t) => {
  const { memory, file } = await withClosedFile(t);
  const target = new RecordingTarget({ accepts: { backing: 'file' } });
  await memory.dmaMappers.addDmaMapper(target);
  const given = fileOf(target.held()[0]);
  t.is(given.length, 3n * PAGE);
  t.is(given.pageSize, PAGE);
  t.is(given.name, 'closed early');
  t.is(fstatSync(given.fd).size, Number(3n * PAGE));
  t.deepEqual(given.read(PAGE, 1), Uint8Array.of(0x41));
  given.write(PAGE, Uint8Array.of(0x99));
  t.deepEqual(memory.read(at(5), 1), Uint8Array.of(0x99));
  for (const use of [() => file.length, () => file.fd, () => file.read(0n, 1)]) throwsCode(t, use, 'ERR_CLOSED');
});

test('a DmaBuffer reaches a target of files that joins later', async (t) => {
  const memory = await guest(t);
  await using buffer = await DmaBuffer.allocate(memory, PAGE);
  buffer.bytes[0] = 0x77;
  const target = new RecordingTarget({ accepts: { backing: 'file' } });
  await memory.dmaMappers.addDmaMapper(target);
  const { backing } = target.held()[0] ?? {};
  if (typeof backing !== 'object') throw new Error('a buffer is a file');
  t.deepEqual(backing.file.read(backing.offset, 1), Uint8Array.of(0x77));
});

test('maps and unmaps an overlay over memory whose file was closed', async (t) => {
  const { memory } = await withClosedFile(t);
  const target = new RecordingTarget({ accepts: { backing: 'file' } });
  target.judge = ({ request }) => void fileOf(request).fd; // the calls of a vhost-user target
  await memory.dmaMappers.addDmaMapper(target);
  const rom = taggedFile(t, 'rom', 1, 0x70);
  const overlay = await memory.regions.addRegion({ name: 'overlay', range: pages(5, 1), priority: 200 });
  await overlay.addMapping({ range: pages(0, 1), backing: { file: rom, offset: 0n } });
  await overlay.mapToGuest();
  await overlay.unmapFromGuest();
  t.deepEqual(target.heldText(), ['0x4000..0x5000 rw r', '0x5000..0x6000 rw r', '0x6000..0x7000 rw r']);
});

test('all requests for memory of one file carry the same file, in every guest memory and target', async (t) => {
  const file = taggedFile(t, 'shared', 2, 0x10);
  const given: MemoryFile[] = [];
  for (const name of ['one', 'two']) {
    const memory = await guest(t);
    const region = await memory.regions.addRegion({ name, range: pages(4, 4) });
    await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
    await region.addMapping({ range: pages(2, 1), backing: { file, offset: PAGE } });
    await region.mapToGuest();
    for (const target of [new RecordingTarget({ needsVa: true }), new RecordingTarget()]) {
      await memory.dmaMappers.addDmaMapper(target);
      given.push(...target.held().map(fileOf));
    }
  }
  t.is(given.length, 8);
  t.is(new Set(given).size, 1);
});

test("a target's close of the file in a request closes nothing", async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'kept', 1, 0x10);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 1) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const given = fileOf(target.held()[0]);
  given.close();
  t.deepEqual(given.read(0n, 1), Uint8Array.of(0x10));
  t.deepEqual(file.read(0n, 1), Uint8Array.of(0x10));
  await region.unmapFromGuest();
  await region.mapToGuest();
  t.is(fileOf(target.held()[0]), given);
});

test('the file of a request is closed when the file and its last mapping are gone', async (t) => {
  const { memory } = await withClosedFile(t);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const given = fileOf(target.held()[0]);
  const { fd } = given;
  await memory.close();
  for (const use of [() => given.fd, () => given.length, () => given.read(0n, 1)]) throwsCode(t, use, 'ERR_CLOSED');
  t.throws(() => fstatSync(fd), { code: 'EBADF' });
});

test('the file of a request backs memory of another guest, which keeps it open', async (t) => {
  const { memory } = await withClosedFile(t);
  const target = new RecordingTarget();
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const { backing } = target.held()[0] ?? {};
  if (typeof backing !== 'object') throw new Error('the request has no file');
  const other = await guest(t);
  const region = await other.regions.addRegion({ name: 'shared', range: pages(0, 3) });
  await region.addMapping({ range: pages(0, 3), backing });
  await region.mapToGuest();
  await handle.remove();
  await memory.close();
  const iommu = new SimulatedIommu({ rules: 'iommufd' });
  await other.dmaMappers.addDmaMapper(iommu);
  t.deepEqual(iommu.read(PAGE, 1), Uint8Array.of(0x41));
});
