/**
 * Assertions on errors by their code.
 */
import type { ExecutionContext } from 'ava';
import { type ErrorCode, PeerDmaError } from '../../ts/index.ts';

/** The call throws a {@link PeerDmaError} of that code; returns it. */
export function throwsCode(t: ExecutionContext, call: () => unknown, code: ErrorCode, message?: string): PeerDmaError {
  try {
    call();
  } catch (error) {
    return expected(t, error, code, message);
  }
  throw new Error(`${message ?? 'the call'}: expected ${code}, nothing was thrown`);
}

/** The promise rejects with a {@link PeerDmaError} of that code; returns it. */
export async function rejectsCode(
  t: ExecutionContext,
  pending: Promise<unknown>,
  code: ErrorCode,
  message?: string,
): Promise<PeerDmaError> {
  try {
    await pending;
  } catch (error) {
    return expected(t, error, code, message);
  }
  throw new Error(`${message ?? 'the promise'}: expected ${code}, it was fulfilled`);
}

function expected(t: ExecutionContext, error: unknown, code: ErrorCode, message = ''): PeerDmaError {
  if (!(error instanceof PeerDmaError)) throw new Error(`${message}: not a PeerDmaError`, { cause: error });
  t.is(error.code, code, `${message} ${error.message}`);
  return error;
}
