// Copies to and from guest-physical addresses.
import test from 'ava';
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { AddressRange, MemoryFile, SimulatedIommu } from '../../ts/index.ts';
import { throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, PAGE_BYTES, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';
import { fileMemoryOf } from '../../ts/memory/memory-file.ts';
import { temporaryFile } from '../support/temporary-file.ts';

test('RAM is zero at first, and reads back written bytes', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: at(2) },
      { start: at(8), length: at(2), private: true },
    ],
  });
  for (const gpa of [0n, at(8)]) {
    t.deepEqual(memory.read(gpa + 5n, 3), Uint8Array.of(0, 0, 0));
    memory.write(gpa + 5n, Uint8Array.of(1, 2, 3));
    t.deepEqual(memory.read(gpa + 4n, 5), Uint8Array.of(0, 1, 2, 3, 0));
  }
});

test('read returns an array that owns its memory, of every length and kind of RAM', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: at(4) },
      { start: at(8), length: at(4), private: true },
    ],
  });
  for (const start of [0n, at(8)]) {
    for (const length of [1, 64, 65, PAGE_BYTES, 3 * PAGE_BYTES + 5]) {
      memory.write(start + 3n, new Uint8Array(length).fill(7));
      const read = memory.read(start + 3n, length);
      memory.write(start + 3n, new Uint8Array(length).fill(8));
      t.is(Object.getPrototypeOf(read), Uint8Array.prototype);
      t.deepEqual([read.byteOffset, read.buffer.byteLength], [0, length]);
      t.true(
        read.every((byte) => byte === 7),
        `${length} bytes at ${start}`,
      );
      read.fill(9);
      t.is(memory.read8(start + 3n), 8);
    }
  }
});

test('an access may cross from one sub-mapping to the next', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 4, 0x10);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 3) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: at(3) } });
  await region.addMapping({ range: pages(1, 1), backing: 'private' });
  await region.addMapping({ range: pages(2, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  memory.write(at(5), new Uint8Array(PAGE_BYTES).fill(0x99));

  const bytes = memory.read(at(5) - 2n, PAGE_BYTES + 4);
  t.deepEqual([...bytes.subarray(0, 3), ...bytes.subarray(-3)], [0x13, 0x13, 0x99, 0x99, 0x10, 0x10]);
  memory.write(at(6) - 2n, Uint8Array.of(1, 2, 3, 4));
  t.deepEqual(memory.read(at(6) - 3n, 6), Uint8Array.of(0x99, 1, 2, 3, 4, 0x10));
  t.deepEqual(file.read(0n, 3), Uint8Array.of(3, 4, 0x10));
});

test('an access that meets a gap fails, and nothing is written', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE },
      { start: at(2), length: PAGE },
    ],
  });
  const gap = throwsCode(t, () => memory.write(PAGE - 2n, new Uint8Array(PAGE_BYTES + 4).fill(7)), 'ERR_NOT_MAPPED');
  t.regex(gap.message, /0x1000/);
  t.deepEqual(memory.read(PAGE - 2n, 2), Uint8Array.of(0, 0));
  t.deepEqual(memory.read(at(2), 2), Uint8Array.of(0, 0));
  throwsCode(t, () => memory.read(PAGE - 2n, 4), 'ERR_NOT_MAPPED');
  throwsCode(t, () => memory.read(at(1), 1), 'ERR_NOT_MAPPED');
  throwsCode(t, () => memory.read(at(3), 1), 'ERR_NOT_MAPPED');
  throwsCode(t, () => memory.read(at(3) - 1n, 2), 'ERR_NOT_MAPPED');
  throwsCode(t, () => memory.read((1n << 64n) - 1n, 2), 'ERR_OUT_OF_RANGE');
});

test('an access of no bytes needs no memory', async (t) => {
  const memory = await guest(t);
  t.deepEqual(memory.read(at(1), 0), new Uint8Array(0));
  t.notThrows(() => memory.write(at(1), new Uint8Array(0)));
});

for (const mapped of [false, true]) {
  const how = mapped ? 'mapped by a target that needs host memory' : 'mapped by no target';
  test(`the VMM writes memory that is read-only for devices, ${how}`, async (t) => {
    const memory = await guest(t);
    const file = taggedFile(t, 'file', 1, 0x10);
    const region = await memory.regions.addRegion({ name: 'rom', range: pages(0, 2) });
    await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n }, writable: false });
    await region.addMapping({ range: pages(1, 1), backing: 'private', writable: false });
    await region.mapToGuest();
    if (mapped) await memory.dmaMappers.addDmaMapper(new RecordingTarget({ needsVa: true }));
    for (const gpa of [0n, PAGE]) {
      memory.write(gpa, Uint8Array.of(3));
      t.deepEqual(memory.read(gpa, 1), Uint8Array.of(3));
    }
  });
}

test('arguments that are none are refused', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const wrong = <T>(value: unknown): T => value as T;
  for (const gpa of [0, NaN, '0', null, undefined, -1n, {}]) {
    throwsCode(t, () => memory.read(wrong(gpa), 1), 'ERR_INVALID_ARGUMENT', `read at ${String(gpa)}`);
    throwsCode(t, () => memory.write(wrong(gpa), Uint8Array.of(1)), 'ERR_INVALID_ARGUMENT', `write at ${String(gpa)}`);
  }
  for (const length of [-1, NaN, 1.5, Infinity, '1', null, 1n]) {
    throwsCode(t, () => memory.read(0n, wrong(length)), 'ERR_INVALID_ARGUMENT', `length ${String(length)}`);
  }
  t.deepEqual(memory.read(0n, 4), new Uint8Array(4));
});

test('bytes that are none are not written', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const wrong = <T>(value: unknown): T => value as T;
  for (const bytes of ['abc', 5, null, undefined, [1, 2], { length: 2 }, new Uint16Array(2)]) {
    throwsCode(t, () => memory.write(0n, wrong(bytes)), 'ERR_INVALID_ARGUMENT', `bytes ${String(bytes)}`);
  }
  t.deepEqual(memory.read(0n, 4), new Uint8Array(4));
});

test('a file that was truncated is an error, not a signal', async (t) => {
  const memory = await guest(t);
  const fd = temporaryFile(t, 2 * PAGE_BYTES);
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => file.close());
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 2) });
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: 0n } });
  await region.mapToGuest();
  ftruncateSync(fd, PAGE_BYTES);
  t.deepEqual(memory.read(0n, 1), Uint8Array.of(0));
  throwsCode(t, () => memory.read(PAGE, 1), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => memory.write(PAGE, Uint8Array.of(1)), 'ERR_OUT_OF_RANGE');
});

test('maps a file that is open for reading, read-only for devices', async (t) => {
  const fd = temporaryFile(t, PAGE_BYTES);
  writeSync(fd, Uint8Array.of(0x5a));
  const readable = openSync(`/proc/self/fd/${fd}`, 'r');
  const file = MemoryFile.fromFd(readable);
  closeSync(readable);
  t.teardown(() => file.close());
  const memory = await guest(t);
  const region = await memory.regions.addRegion({ name: 'rom', range: pages(4, 1) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n }, writable: false });
  await region.mapToGuest();
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  t.deepEqual(iommu.read(at(4), 1), Uint8Array.of(0x5a));
});

test('the BAR of a device is read and written by the device, at the offsets of its file', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const file = taggedFile(t, 'bar', 4, 0x10);
  const log: string[] = [];
  fileMemoryOf(file).device = {
    accessible: true,
    revocations: 0,
    access: {
      read: (offset, into) => {
        log.push(`read ${into.length} at ${offset}`);
        into.fill(0x5a);
      },
      write: (offset, bytes) => void log.push(`write ${bytes.join(' ')} at ${offset}`),
    },
  };
  const window = memory.newDeviceMemory({ name: 'bar', length: at(2) });
  await window.addMapping({ range: AddressRange.of(0n, at(2)), backing: { file, offset: at(2) } });
  await window.mapToGuest(PAGE);
  t.deepEqual(memory.read(PAGE - 1n, 3), Uint8Array.of(0, 0x5a, 0x5a));
  memory.write(at(2) + 4n, Uint8Array.of(1, 2, 3, 4));
  t.deepEqual(log, [`read 2 at ${at(2)}`, `write 1 2 3 4 at ${at(3) + 4n}`]);
});
