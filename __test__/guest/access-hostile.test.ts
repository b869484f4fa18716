// Arrays that a caller's class describes in its own way: guest memory goes by the bytes that they have.
import test from 'ava';
import { runInNewContext } from 'node:vm';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { GuestMemory, MemoryFile } from '../../ts/index.ts';
import { at, guest, PAGE, PAGE_BYTES, pages, taggedFile } from '../support/pages.ts';

/** Of ES2024, which the types do not have. */
const ResizableBuffer = ArrayBuffer as unknown as new (
  length: number,
  options: { maxByteLength: number },
) => ArrayBuffer & { resize(length: number): void };

test('an array that says another length is not written past the end of a mapping', async (t) => {
  const memory = await guest(t);
  const region = await memory.regions.addRegion({ name: 'first page', range: pages(0, 1) });
  const file = taggedFile(t, 'file', 3, 0x10);
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const lying = new Uint8Array(2 * PAGE_BYTES).fill(0x99);
  Object.defineProperty(lying, 'length', { value: 4 });
  throwsCode(t, () => memory.write(PAGE - 4n, lying), 'ERR_NOT_MAPPED');
  throwsCode(t, () => memory.readInto(PAGE - 4n, lying), 'ERR_NOT_MAPPED');
  t.deepEqual(file.read(PAGE, 1), Uint8Array.of(0x11));
});

test('a method of the array is not called with guest memory', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(4) }] });
  const given: ArrayBufferLike[] = [];
  class Keeps extends Uint8Array<ArrayBuffer> {
    override set(from: ArrayLike<number>): void {
      if (from instanceof Uint8Array) given.push(from.buffer);
    }
    override subarray(): never {
      throw new Error('called');
    }
  }
  memory.write32(8n, 7);
  const into = new Keeps(new ArrayBuffer(4));
  memory.readInto(8n, into);
  t.deepEqual([...into], [7, 0, 0, 0]);
  memory.write(16n, into);
  t.is(memory.read32(16n), 7);
  t.deepEqual(given, []);
});

test('bytes of another realm are bytes, and shared ones are rejected', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  memory.write(0n, runInNewContext('Uint8Array.of(1, 2)') as Uint8Array);
  t.is(memory.read16(0n), 0x0201);
  const shared = runInNewContext('new Uint8Array(new SharedArrayBuffer(4))') as Uint8Array;
  throwsCode(t, () => memory.write(0n, shared), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => memory.readInto(0n, shared), 'ERR_INVALID_ARGUMENT');
});

test('the bytes of a resizable buffer are those that it has now', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const buffer = new ResizableBuffer(8, { maxByteLength: 16 });
  const [whole, part] = [new Uint8Array(buffer), new Uint8Array(buffer, 4, 4)];
  memory.write64(0n, 0x0807_0605_0403_0201n);
  buffer.resize(6);
  memory.readInto(0n, whole);
  t.deepEqual([...whole], [1, 2, 3, 4, 5, 6]);
  memory.readInto(0n, part); // it is out of bounds, and has no bytes
  memory.write(0n, part);
  t.is(memory.read64(0n), 0x0807_0605_0403_0201n);
});

test('bytes of a detached buffer are none', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const bytes = Uint8Array.of(1);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  t.notThrows(() => memory.write(0n, bytes));
  t.is(memory.read8(0n), 0);
});

test('rejects a number for a bigint and a bigint for a number, and names the type', async (t) => {
  const file = taggedFile(t, 'file', 1, 0);
  const cases: [() => unknown, RegExp][] = [
    [() => MemoryFile.create(4096 as never), /length of a memory file is a non-negative bigint, not the number 4096/],
    [() => MemoryFile.create(-1n), /length of a memory file is a non-negative bigint, not/],
    [() => MemoryFile.fromFd(3n as never), /file descriptor is a whole number from 0 on, not the bigint 3/],
    [() => MemoryFile.fromFd(1.5), /file descriptor is a whole number from 0 on, not/],
    [() => file.write(0 as never, new Uint8Array(1)), /an offset is a non-negative bigint, not the number 0/],
  ];
  for (const [act, message] of cases) t.regex(throwsCode(t, act, 'ERR_INVALID_ARGUMENT').message, message);
  t.regex(throwsCode(t, () => MemoryFile.create(1n << 64n), 'ERR_OUT_OF_RANGE').message, /less than 2\^64/);
  for (const [options, message] of [
    [{ numaNode: 0n }, /numaNode is a whole number from 0 on, not the bigint 0/],
    [{ prefault: 'yes' }, /prefault is true or false, not/],
  ] as const) {
    const created = GuestMemory.create({ ram: [{ start: 0n, length: PAGE, ...(options as object) }] });
    t.regex((await rejectsCode(t, created, 'ERR_INVALID_ARGUMENT')).message, message);
  }
});

test.serial('read allocates no array for unmapped addresses, however long the access', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(4) }] });
  const { allocUnsafeSlow } = Buffer;
  t.teardown(() => (Buffer.allocUnsafeSlow = allocUnsafeSlow));
  const allocated: number[] = [];
  Buffer.allocUnsafeSlow = (size) => {
    allocated.push(size);
    return allocUnsafeSlow(size);
  };
  for (const length of [5 * PAGE_BYTES, 2 ** 31, 2 ** 32 - 1]) {
    throwsCode(t, () => memory.read(0n, length), 'ERR_NOT_MAPPED', `${length}`);
  }
  t.deepEqual(allocated, []);
});
