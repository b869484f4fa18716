/**
 * Errors of a back end.
 */
import type { AddressRange } from '../address-range.ts';
import { PeerDmaError, asError } from '../errors.ts';

/** @internal */
export function timedOut(name: string, what: string, milliseconds: number): PeerDmaError {
  return new PeerDmaError(
    'ERR_TIMEOUT',
    `${name}: ${what} failed: the back end did not reply within ${milliseconds} ms. End its process`,
    { target: name },
  );
}

/** @internal */
export function disconnected(name: string, cause?: unknown): PeerDmaError {
  return new PeerDmaError(
    'ERR_DISCONNECTED',
    `${name}: the back end has closed the connection, or its process has ended. Connect to it again`,
    { target: name, cause },
  );
}

/** @internal */
export function invalidReply(name: string, reason: string, cause: unknown): PeerDmaError {
  return new PeerDmaError(
    'ERR_INVALID_REPLY',
    `${name}: receiving a reply failed: ${reason}. The connection is ended: repair the back end`,
    { target: name, cause },
  );
}

/** An error of this process, not of the back end. @internal */
export function localFailure(name: string, reason: string, cause: unknown): PeerDmaError {
  const errno = cause instanceof PeerDmaError ? cause.errno : undefined;
  const remedy = errno === 'EMFILE' ? 'Raise the limit of open files' : 'End the process of the back end';
  return new PeerDmaError(
    'ERR_SYSTEM',
    `${name}: receiving a reply failed: ${reason}. The connection is ended. ${remedy}`,
    { target: name, cause, errno },
  );
}

/** @internal */
export function refused(name: string, request: string, range?: AddressRange): PeerDmaError {
  return new PeerDmaError(
    'ERR_REQUEST_REFUSED',
    `${name}: ${request} failed: the back end refused it. Read the log of the back end`,
    { target: name, range },
  );
}

/** @internal */
export function unsupported(name: string, what: string, missing: string): PeerDmaError {
  return new PeerDmaError(
    'ERR_UNSUPPORTED',
    `${name}: ${what} failed: the back end does not offer ${missing}. Use a back end that does`,
    { target: name },
  );
}

/** The error of a mapping that the back end may have although it failed. @internal */
export function mapUnknown(name: string, thrown: unknown): PeerDmaError {
  const reason = asError(thrown).message;
  const message = `${name}: undoing a mapping failed: ${reason}. End the process of the back end, then call targetClosed`;
  return new PeerDmaError('ERR_UNMAP_FAILED', message, { target: name, cause: thrown });
}

/** @internal */
export function asPeerDmaError(thrown: unknown, target: string): PeerDmaError {
  if (thrown instanceof PeerDmaError) return thrown;
  return new PeerDmaError('ERR_SYSTEM', `${target}: ${asError(thrown).message}`, { target, cause: thrown });
}
