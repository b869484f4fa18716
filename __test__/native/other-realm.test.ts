// Errors of Node and the native core have the main realm; a test runner may load the package in another one.
import test from 'ava';
import { runInNewContext } from 'node:vm';
import { PeerDmaError } from '../../ts/index.ts';
import { asError } from '../../ts/errors.ts';
import { fromNative } from '../../ts/native-call.ts';

test('an error of another realm is converted like one of this realm', (t) => {
  const error = runInNewContext(`Object.assign(new Error('text'), {
    name: 'NativeError', code: 'ERR_UNALIGNED', errno: 'EINVAL', syscall: 'mmap', range: { start: 0x1000n, end: 0x2000n },
  })`) as Error;
  t.false(error instanceof Error);
  const converted = fromNative(error);
  t.true(converted instanceof PeerDmaError);
  const { code, errno, syscall, range, message } = converted as PeerDmaError;
  t.deepEqual([code, errno, syscall, range?.start, message], ['ERR_UNALIGNED', 'EINVAL', 'mmap', 0x1000n, 'text']);
  const wrongType = runInNewContext(`Object.assign(new Error('expected'), { code: 'InvalidArg' })`) as Error;
  t.is((fromNative(wrongType) as PeerDmaError).code, 'ERR_INVALID_ARGUMENT');
  t.is(asError(error), error);
});
