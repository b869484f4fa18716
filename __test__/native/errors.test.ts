/**
 * The errors of the native core: their fields, and the `PeerDmaError`s made from them.
 */
import { NativeMemoryFile, NativeReservation } from '#native';
import test, { type ExecutionContext } from 'ava';
import { closeSync, ftruncateSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AddressRange, PeerDmaError } from '../../ts/index.ts';
import { fromNative, native, nativeAsync } from '../../ts/native-call.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';

const PAGE = 4096n;

/** A reservation whose second page is that of a file which is too short for it. */
function withTruncatedPage(t: ExecutionContext): NativeReservation {
  const path = join(tmpdir(), `peerdma-errors-${process.pid}-${t.title.length}`);
  const fd = openSync(path, 'w+');
  rmSync(path);
  ftruncateSync(fd, Number(2n * PAGE));
  const [file, reservation] = [NativeMemoryFile.fromFd(fd), new NativeReservation(36)];
  reservation.mapFile(0n, 2n * PAGE, file, 0n, true, false);
  ftruncateSync(fd, Number(PAGE));
  t.teardown(() => {
    reservation.close();
    file.close();
    closeSync(fd);
  });
  return reservation;
}

const BOTH_PAGES = BigUint64Array.of(0n, 2n * PAGE);

test('an error of a call has its code, errno and system call as fields', (t) => {
  const unopened = 1 << 20;
  const thrown = t.throws(() => NativeMemoryFile.fromFd(unopened));
  const { name, message, ...fields } = { ...thrown, message: thrown.message };
  t.is(name, 'NativeError');
  t.regex(message, /^duplicating descriptor 1048576: .* failed with EBADF/);
  t.deepEqual(fields as object, {
    code: 'ERR_INVALID_ARGUMENT',
    errno: 'EBADF',
    syscall: 'fcntl(F_DUPFD_CLOEXEC)',
  });
  const error = throwsCode(t, () => native(() => NativeMemoryFile.fromFd(unopened)), 'ERR_INVALID_ARGUMENT');
  t.deepEqual([error.errno, error.syscall, error.message], ['EBADF', 'fcntl(F_DUPFD_CLOEXEC)', message]);
});

test('an error of a call has its range', (t) => {
  const reservation = withTruncatedPage(t);
  const thrown = t.throws(() => reservation.ensureMapped(BOTH_PAGES), { code: 'ERR_MEMORY_FAULT' });
  t.deepEqual((thrown as { range?: object }).range, { start: 0n, end: 2n * PAGE });
  const error = throwsCode(t, () => native(() => reservation.ensureMapped(BOTH_PAGES)), 'ERR_MEMORY_FAULT');
  t.true(error.range instanceof AddressRange);
  t.is(error.range?.end, 2n * PAGE);
});

test('an error of a worker thread has the same fields', async (t) => {
  const reservation = withTruncatedPage(t);
  const thrown = t.throws(() => reservation.ensureMapped(BOTH_PAGES));
  const rejected = await t.throwsAsync(reservation.ensureMappedAsync(BOTH_PAGES));
  t.deepEqual({ ...rejected, message: rejected.message }, { ...thrown, message: thrown.message });
  t.is(rejected.name, 'NativeError');
  const error = await rejectsCode(
    t,
    nativeAsync(() => reservation.ensureMappedAsync(BOTH_PAGES), { target: 'vm' }),
    'ERR_MEMORY_FAULT',
  );
  t.deepEqual([error.range?.end, error.target], [2n * PAGE, 'vm']);
});

test('a failure in a batch has an error of the same fields', async (t) => {
  const [file, reservation] = [NativeMemoryFile.create(PAGE, 'batch', 0), new NativeReservation(36)];
  const parts = BigUint64Array.of(0n, PAGE, 1n, 0n, 3n * PAGE, PAGE, 1n, PAGE);
  const alone = t.throws(() => reservation.mapFile(3n * PAGE, PAGE, file, PAGE, true, false));
  const failure = reservation.mapFiles([file], parts);
  reservation.unmap(0n, PAGE);
  for (const found of [failure, await reservation.mapFilesAsync([file], parts)]) {
    t.is(found?.index, 1);
    const { error } = found ?? {};
    t.true(error instanceof Error);
    t.deepEqual({ ...error, message: error?.message }, { ...alone, message: alone.message });
    const converted = fromNative(error);
    t.true(converted instanceof PeerDmaError && converted.code === 'ERR_OUT_OF_RANGE');
  }
  reservation.close();
  file.close();
});

test('an argument that napi-rs rejects becomes an invalid argument', (t) => {
  const create = (): unknown => NativeMemoryFile.create(PAGE, 7 as never, 0);
  const thrown = t.throws(create, { name: 'Error', code: 'StringExpected' });
  const error = throwsCode(t, () => native(create), 'ERR_INVALID_ARGUMENT');
  t.is(error.message, thrown.message);
  t.is((error.cause as Error).message, thrown.message);
});

test('an argument that the core rejects has the code of the core', (t) => {
  const create = (length: unknown) => () => NativeMemoryFile.create(length as bigint, 'x', 0);
  t.throws(create(4096), { name: 'NativeError', code: 'ERR_INVALID_ARGUMENT' });
  t.throws(create(-1n), { name: 'NativeError', code: 'ERR_INVALID_ARGUMENT' });
  t.throws(create(1n << 64n), { name: 'NativeError', code: 'ERR_OUT_OF_RANGE' });
});

test('an error of another origin is not converted', (t) => {
  const error = Object.assign(new RangeError('not of the core'), { code: 'ERR_OUT_OF_RANGE', errno: 'EINVAL' });
  t.is(fromNative(error), error);
  t.is(
    t.throws(() =>
      native(() => {
        throw error;
      }),
    ),
    error,
  );
});
