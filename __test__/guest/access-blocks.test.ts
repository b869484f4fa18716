// Guest memory is read and written through mappings of this process, with the same result as by system calls.
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { ftruncateSync, readFileSync } from 'node:fs';
import { memorySettled } from '#native';
import { GuestMemory, MemoryFile } from '../../ts/index.ts';
import { throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, PAGE_BYTES, pages, taggedFile } from '../support/pages.ts';
import { temporaryFile } from '../support/temporary-file.ts';

const GIB = 1n << 30n;

/** Mappings of a file in this process. */
function mappingsOf(name: string): number {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(name)).length;
}

/** RAM of both kinds, and a file that can be truncated: pages 0 and 1, 2, 3, adjoining. */
async function mixed(t: ExecutionContext): Promise<GuestMemory> {
  const cut = MemoryFile.fromFd(temporaryFile(t, PAGE_BYTES));
  t.teardown(() => cut.close());
  return guest(t, {
    ram: [
      { start: 0n, length: at(2) },
      { start: at(2), length: PAGE, private: true },
      { start: at(3), length: PAGE, file: cut },
    ],
  });
}

test('every width reads and writes little-endian bytes in memory of every kind', async (t) => {
  const memory = await mixed(t);
  const model = new DataView(new ArrayBuffer(4 * PAGE_BYTES));
  const place = fc.oneof(
    fc.integer({ min: 0, max: 4 * PAGE_BYTES - 8 }),
    fc
      .tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: -8, max: 0 }))
      .map(([page, by]) => page * PAGE_BYTES + by),
  );
  const check = (where: number): void => {
    const gpa = BigInt(where);
    t.is(memory.read8(gpa), model.getUint8(where));
    t.is(memory.read16(gpa), model.getUint16(where, true));
    t.is(memory.read32(gpa), model.getUint32(where, true));
    t.is(memory.read64(gpa), model.getBigUint64(where, true));
    const bytes = new Uint8Array(8);
    memory.readInto(gpa, bytes);
    t.deepEqual(bytes, new Uint8Array(model.buffer, where, 8));
    t.deepEqual(memory.read(gpa, 8), bytes);
  };
  fc.assert(
    fc.property(
      place,
      fc.constantFrom(8, 16, 32, 64),
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      (where, bits, any) => {
        const gpa = BigInt(where);
        const value = BigInt.asUintN(bits, any);
        if (bits === 8) memory.write8(gpa, Number(value));
        if (bits === 16) memory.write16(gpa, Number(value));
        if (bits === 32) memory.write32(gpa, Number(value));
        if (bits === 64) memory.write64(gpa, value);
        for (let byte = 0; byte < bits / 8; byte++) {
          model.setUint8(where + byte, Number((value >> BigInt(8 * byte)) & 0xffn));
        }
        check(where);
      },
    ),
    { numRuns: 300 },
  );
  t.deepEqual(memory.read(0n, 4 * PAGE_BYTES), new Uint8Array(model.buffer));
});

test('values that do not fit are rejected, and nothing is written', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  for (const value of [-1, 0.5, Number.NaN, 2 ** 32, 5n, '5', undefined]) {
    for (const write of ['write8', 'write16', 'write32'] as const) {
      throwsCode(t, () => memory[write](0n, value as number), 'ERR_INVALID_ARGUMENT');
    }
  }
  throwsCode(t, () => memory.write8(0n, 256), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => memory.write16(0n, 65_536), 'ERR_INVALID_ARGUMENT');
  for (const value of [-1n, 1n << 64n, 5]) {
    throwsCode(t, () => memory.write64(0n, value as bigint), 'ERR_INVALID_ARGUMENT');
  }
  t.is(memory.read64(0n), 0n);
  for (const gpa of ['0', 0, null, undefined, {}]) {
    throwsCode(t, () => memory.read32(gpa as bigint), 'ERR_INVALID_ARGUMENT');
    throwsCode(t, () => memory.write32(gpa as bigint, 1), 'ERR_INVALID_ARGUMENT');
  }
});

test('an access that is partly outside memory fails, also after a successful access beside it', async (t) => {
  const memory = await guest(t, { ram: [{ start: PAGE, length: PAGE }] });
  memory.write32(at(2) - 4n, 0x0403_0201);
  for (const gpa of [at(2) - 3n, at(2), PAGE - 1n, PAGE - 4n, 0n]) {
    throwsCode(t, () => memory.read32(gpa), 'ERR_NOT_MAPPED');
    throwsCode(t, () => memory.write32(gpa, 0), 'ERR_NOT_MAPPED');
    throwsCode(t, () => memory.readInto(gpa, new Uint8Array(4)), 'ERR_NOT_MAPPED');
  }
  t.is(memory.read32(at(2) - 4n), 0x0403_0201);
});

test('does not read the parts of a file that are not mapped', async (t) => {
  const memory = await guest(t);
  const region = await memory.regions.addRegion({ name: 'middle', range: pages(1, 2) });
  const file = taggedFile(t, 'file', 4, 0x10);
  await region.addMapping({ range: pages(0, 2), backing: { file, offset: PAGE } });
  await region.mapToGuest();
  t.is(memory.read8(PAGE), 0x11);
  for (const gpa of [0n, PAGE - 1n, at(3)]) throwsCode(t, () => memory.read8(gpa), 'ERR_NOT_MAPPED');
  throwsCode(t, () => memory.write32(PAGE - 1n, 0), 'ERR_NOT_MAPPED');
  t.deepEqual(file.read(PAGE - 1n, 2), Uint8Array.of(0x10, 0x11));
});

test('an access crosses the end of a block', async (t) => {
  const file = MemoryFile.create(2n * GIB, { name: 'two-blocks' });
  t.teardown(() => file.close());
  const memory = await guest(t, { ram: [{ start: 0n, length: 2n * GIB, file }] });
  for (const [gpa, value] of [
    [GIB - 4n, 0x0807_0605_0403_0201n],
    [GIB - 8n, 1n],
    [GIB, 2n],
    [2n * GIB - 8n, 3n],
  ] as const) {
    memory.write64(gpa, value);
    t.is(memory.read64(gpa), value);
    t.is(Buffer.from(memory.read(gpa, 8)).readBigUInt64LE(), value);
  }
  t.is(mappingsOf('two-blocks'), 2);
});

test('the next access uses a changed memory map', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(4) }] });
  t.is(memory.read8(PAGE), 0);
  const over = await memory.regions.addRegion({ name: 'over', range: pages(1, 1), priority: 500 });
  await over.addMapping({ range: pages(0, 1), backing: { file: taggedFile(t, 'over', 1, 0x20), offset: 0n } });
  t.is(memory.read8(PAGE), 0);
  await over.mapToGuest();
  t.is(memory.read8(PAGE), 0x20);
  t.is(memory.read32(PAGE - 2n), 0x2020_0000);
  await over.unmapFromGuest();
  t.is(memory.read8(PAGE), 0);
  await memory.close();
  throwsCode(t, () => memory.read8(PAGE), 'ERR_CLOSED');
  throwsCode(t, () => memory.write8(PAGE, 0), 'ERR_CLOSED');
  throwsCode(t, () => memory.readInto(PAGE, new Uint8Array(1)), 'ERR_CLOSED');
});

test('guest memory and its file leave no mapping behind when both are closed, in either order', async (t) => {
  for (const fileFirst of [true, false]) {
    const name = `in-blocks-${fileFirst}`;
    const file = MemoryFile.create(64n << 20n, { name });
    const memory = await guest(t, { ram: [{ start: 0n, length: 64n << 20n, file }] });
    if (fileFirst) file.close();
    memory.write(0n, new Uint8Array(32 << 20).fill(1));
    t.is(memory.read8(5n), 1);
    t.is(mappingsOf(name), 1);
    await memory.close();
    file.close();
    await memorySettled();
    t.is(mappingsOf(name), 0);
  }
});

test('an access of truncated memory fails, and other accesses work', async (t) => {
  const fd = temporaryFile(t, PAGE_BYTES);
  const file = MemoryFile.fromFd(fd);
  t.teardown(() => file.close());
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE, file }] });
  memory.write32(8n, 7);
  t.is(memory.read32(8n), 7);
  ftruncateSync(fd, 0);
  throwsCode(t, () => memory.read32(8n), 'ERR_OUT_OF_RANGE');
  t.throws(() => memory.write32(8n, 7));
});
