/**
 * Errors of DMA targets. Each names the target, the region and the range.
 */
import { type ErrorCode, PeerDmaError, asError } from '../errors.ts';
import type { AcceptedMemory } from './accepted-memory.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { MappingStatus } from './target.ts';

/**
 * Converts an error of a target's map to one that names the target and the range. `ERR_MAPPING_REVOKED` is the state of
 * an existing mapping: if a map fails with that code, the code becomes `ERR_MAP_FAILED`.
 *
 * @internal
 */
export function mapFailed(target: string, sub: SubMapping, thrown: unknown): PeerDmaError {
  const error = asError(thrown);
  const { code: original = 'ERR_MAP_FAILED', message, errno, syscall } = details(error);
  const code = original === 'ERR_MAPPING_REVOKED' ? 'ERR_MAP_FAILED' : original;
  if (error instanceof PeerDmaError && error.target !== undefined && error.range !== undefined && code === original) {
    return error;
  }
  return new PeerDmaError(code, `${target}: cannot map ${nameWithRange(sub)}: ${message}`, {
    errno,
    syscall,
    range: sub.range,
    target,
    cause: thrown,
  });
}

/** Converts an error of a target's unmap. Its code is not kept: the target may still reach the memory. @internal */
export function unmapFailed(target: string, sub: SubMapping, thrown: unknown): PeerDmaError {
  const { message, errno, syscall } = details(asError(thrown));
  const consequence = 'The device may still reach that memory, which is therefore kept until the target is closed';
  return new PeerDmaError(
    'ERR_UNMAP_FAILED',
    `${target}: cannot unmap ${nameWithRange(sub)}: ${message}. ${consequence}`,
    { errno, syscall, range: sub.range, target, cause: thrown },
  );
}

/** The error of a revoked mapping. @internal */
export function revoked(target: string, sub: SubMapping): PeerDmaError {
  const reason = 'the device stopped decoding memory, entered D3hot or was reset after it was mapped';
  const remedy = 'It is mapped again when the device decodes memory. Call refresh() to map it now';
  return new PeerDmaError('ERR_MAPPING_REVOKED', `${target}: ${nameWithRange(sub)} is revoked: ${reason}. ${remedy}`, {
    range: sub.range,
    target,
  });
}

/** The error of a mapping for which `isRevoked` of the target failed. @internal */
export function revocationUnknown(target: string, sub: SubMapping, thrown: unknown): PeerDmaError {
  const reason = `isRevoked failed: ${asError(thrown).message}`;
  return new PeerDmaError(
    'ERR_MAPPING_REVOKED',
    `${target}: ${nameWithRange(sub)} may be revoked: ${reason}. The next change of the range maps it again`,
    { range: sub.range, target, cause: thrown },
  );
}

/** Why a target does not accept the backing of a sub-mapping. @param accepted its trait @internal */
export function backingMismatch(
  target: string,
  sub: SubMapping,
  accepted: Required<AcceptedMemory>['backing'],
): { readonly code: ErrorCode; readonly reason: string } {
  const { file } = sub.memory;
  const files = accepted === 'shareable' ? 'files that other processes can map' : 'files only';
  const backing = file === undefined ? 'private memory' : `of ${file.name}`;
  return { code: 'ERR_FILE_REQUIRED', reason: `${target} maps ${files}, and ${nameWithRange(sub)} is ${backing}` };
}

/** The error for memory that a target requires and whose backing it does not accept. @internal */
export function backingRejected(
  target: string,
  sub: SubMapping,
  accepted: Required<AcceptedMemory>['backing'],
): PeerDmaError {
  const { code, reason } = backingMismatch(target, sub, accepted);
  const isBar = sub.memory.file?.device !== undefined;
  const remedy = isBar ? "Add the target with peerToPeer: 'best-effort'" : 'Back it with MemoryFile.create()';
  return new PeerDmaError(code, `${reason}. ${remedy}`, { range: sub.range, target });
}

/** The most problems that a message lists; the cause contains all. */
const MAX_LISTED = 3;

/** The failure of a change, followed by the errors of its rollback. */
class RollbackErrors extends AggregateError {}

/**
 * The error of a change whose rollback failed too. If the error of the change is one of these, the result lists the
 * problems of both rollbacks.
 *
 * @param problems the errors of the rollback
 * @internal
 */
export function rollbackFailed(error: unknown, problems: readonly Error[]): PeerDmaError {
  if (error instanceof PeerDmaError && error.cause instanceof RollbackErrors) {
    const [failure, ...before] = error.cause.errors as [unknown, ...Error[]];
    return rollbackFailed(failure, [...before, ...problems]);
  }
  const first = error instanceof PeerDmaError ? error : undefined;
  const listed = problems.slice(0, MAX_LISTED).map(({ message }) => message);
  if (problems.length > MAX_LISTED) listed.push('…');
  return new PeerDmaError(
    'ERR_ROLLBACK_FAILED',
    `${asError(error).message}; and ${problems.length} step(s) of the rollback failed: ${listed.join('; ')}`,
    {
      errno: first?.errno,
      syscall: first?.syscall,
      range: first?.range,
      target: first?.target,
      bdf: first?.bdf,
      cause: new RollbackErrors([error, ...problems]),
    },
  );
}

/** The part of a status that describes its error. @internal */
export function statusOf(error: PeerDmaError | undefined): Partial<MappingStatus> {
  if (error === undefined) return {};
  return error.errno === undefined
    ? { code: error.code, reason: error.message }
    : { code: error.code, errno: error.errno, reason: error.message };
}

function nameWithRange(sub: SubMapping): string {
  return `"${sub.name}" at ${sub.range}`;
}

function details(error: Error): Partial<Pick<PeerDmaError, 'code' | 'errno' | 'syscall'>> & { message: string } {
  return error instanceof PeerDmaError ? error : { message: error.message };
}
