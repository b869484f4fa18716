// Files that back guest memory.
import test from 'ava';
import { closeSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { MemoryFile } from '../../ts/index.ts';
import { throwsCode } from '../support/errors.ts';
import { at, PAGE, PAGE_BYTES } from '../support/pages.ts';
import { temporaryFile } from '../support/temporary-file.ts';

const wrong = <T>(value: unknown): T => value as T;

test('a new file has its length, its name, whole pages and zeros', (t) => {
  using file = MemoryFile.create(at(3), { name: 'boxes' });
  t.is(file.length, at(3));
  t.is(file.name, 'boxes');
  t.is(file.pageSize, PAGE);
  t.deepEqual(file.read(at(3) - 4n, 4), new Uint8Array(4));
  t.is(fstatSync(file.fd).size, 3 * PAGE_BYTES);
});

test('seals a new file against shrinking', (t) => {
  using file = MemoryFile.create(at(2));
  for (const length of [0, PAGE_BYTES, 2 * PAGE_BYTES - 1]) {
    t.throws(() => ftruncateSync(file.fd, length), { code: 'EPERM' });
  }
  const again = openSync(`/proc/self/fd/${file.fd}`, 'r+');
  t.throws(() => ftruncateSync(again, 0), { code: 'EPERM' });
  closeSync(again);
  t.is(file.length, at(2));
});

test('shares its contents with the descriptor', (t) => {
  using file = MemoryFile.create(PAGE);
  writeSync(file.fd, Uint8Array.of(1, 2, 3), 0, 3, 10);
  t.deepEqual(file.read(10n, 3), Uint8Array.of(1, 2, 3));
  file.write(11n, Uint8Array.of(9));
  const bytes = new Uint8Array(3);
  readSync(file.fd, bytes, 0, 3, 10);
  t.deepEqual(bytes, Uint8Array.of(1, 9, 3));
});

test('a file from a descriptor is a duplicate: either outlives the other', (t) => {
  using made = MemoryFile.create(PAGE);
  made.write(0n, Uint8Array.of(0x5a));
  const again = openSync(`/proc/self/fd/${made.fd}`, 'r+');
  const file = MemoryFile.fromFd(again);
  t.not(file.fd, again);
  t.is(file.length, PAGE);
  closeSync(again);
  t.deepEqual(file.read(0n, 1), Uint8Array.of(0x5a));
  const third = MemoryFile.fromFd(file.fd);
  file.close();
  third.write(0n, Uint8Array.of(0x5b));
  t.deepEqual(made.read(0n, 1), Uint8Array.of(0x5b));
  third.close();
});

test('an ordinary file from a descriptor follows its length', (t) => {
  const fd = temporaryFile(t, PAGE_BYTES);
  using file = MemoryFile.fromFd(fd);
  ftruncateSync(fd, 2 * PAGE_BYTES);
  t.is(file.length, at(2));
  ftruncateSync(fd, 0);
  t.is(file.length, 0n);
});

test('rejects invalid descriptors', (t) => {
  const closed = openSync('/dev/null', 'r');
  closeSync(closed);
  for (const fd of [
    -1,
    1 << 20,
    NaN,
    1.5,
    Infinity,
    2 ** 32,
    2 ** 53,
    wrong<number>('0'),
    wrong<number>(1n),
    wrong<number>(null),
  ]) {
    throwsCode(t, () => MemoryFile.fromFd(fd), 'ERR_INVALID_ARGUMENT', `fd ${String(fd)}`);
  }
});

test('rejects invalid lengths and options', (t) => {
  throwsCode(t, () => MemoryFile.create(0n), 'ERR_EMPTY_RANGE');
  throwsCode(t, () => MemoryFile.create(1n), 'ERR_UNALIGNED');
  throwsCode(t, () => MemoryFile.create(PAGE + 1n), 'ERR_UNALIGNED');
  for (const length of [
    -PAGE,
    wrong<bigint>(4096),
    wrong<bigint>(NaN),
    wrong<bigint>('4096'),
    wrong<bigint>(undefined),
  ]) {
    throwsCode(t, () => MemoryFile.create(length), 'ERR_INVALID_ARGUMENT', String(length));
  }
  throwsCode(t, () => MemoryFile.create(1n << 64n), 'ERR_OUT_OF_RANGE');
  for (const hugePages of ['4M', '', 'toString', 2, null]) {
    throwsCode(
      t,
      () => MemoryFile.create(PAGE, { hugePages: wrong(hugePages) }),
      'ERR_INVALID_ARGUMENT',
      String(hugePages),
    );
  }
});

test('rejects invalid names', (t) => {
  for (const name of [7, null, 'a\0b']) {
    throwsCode(t, () => MemoryFile.create(PAGE, { name: wrong(name) }), 'ERR_INVALID_ARGUMENT', String(name));
  }
});

test('reading and writing stay within the file', (t) => {
  using file = MemoryFile.create(PAGE);
  throwsCode(t, () => file.read(PAGE, 1), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => file.read(PAGE - 1n, 2), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => file.write(PAGE - 1n, Uint8Array.of(1, 2)), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => file.read((1n << 64n) - 1n, 2), 'ERR_OUT_OF_RANGE');
  t.is(file.length, PAGE, 'a write never makes the file longer');
  for (const offset of [0, -1n, NaN, '0']) {
    throwsCode(t, () => file.read(wrong(offset), 1), 'ERR_INVALID_ARGUMENT', `offset ${String(offset)}`);
  }
});

test('rejects invalid lengths and bytes', (t) => {
  using file = MemoryFile.create(PAGE);
  for (const length of [-1, NaN, 1.5, Infinity]) {
    throwsCode(t, () => file.read(0n, length), 'ERR_INVALID_ARGUMENT', `length ${length}`);
  }
  for (const bytes of ['abc', [1], 5]) {
    throwsCode(t, () => file.write(0n, wrong(bytes)), 'ERR_INVALID_ARGUMENT', `bytes ${String(bytes)}`);
  }
});

test('rejects calls on a closed file, and closes idempotently', (t) => {
  const file = MemoryFile.create(PAGE);
  file.close();
  file.close();
  throwsCode(t, () => file.length, 'ERR_CLOSED');
  throwsCode(t, () => file.pageSize, 'ERR_CLOSED');
  throwsCode(t, () => file.fd, 'ERR_CLOSED');
  throwsCode(t, () => file.read(0n, 1), 'ERR_CLOSED');
  throwsCode(t, () => file.write(0n, Uint8Array.of(1)), 'ERR_CLOSED');
});

for (const [size, kibibytes] of [
  ['2M', 2048],
  ['1G', 1 << 20],
] as const) {
  let free = 0;
  try {
    free = Number(readFileSync(`/sys/kernel/mm/hugepages/hugepages-${kibibytes}kB/free_hugepages`, 'utf8'));
  } catch {
    // This machine has no pages of that size.
  }
  const length = BigInt(kibibytes) * 1024n;
  const title = `huge pages of ${size}`;
  if (free === 0) {
    test(`${title} that are not reserved are an error with that reason`, (t) => {
      const error = throwsCode(t, () => MemoryFile.create(length, { hugePages: size }), 'ERR_HUGE_PAGES_UNAVAILABLE');
      t.truthy(error.errno);
      t.regex(error.message, /sysctl vm\.nr_hugepages=N|This system does not support huge pages of that size/);
      throwsCode(t, () => MemoryFile.create(PAGE, { hugePages: size }), 'ERR_UNALIGNED');
    });
  } else {
    test(`${title} are the pages of a file`, (t) => {
      using file = MemoryFile.create(length, { hugePages: size });
      t.is(file.pageSize, length);
    });
  }
}
