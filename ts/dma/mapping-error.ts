/**
 * Errors of DMA targets, told so that target, region and range are always in them.
 */
import { PeerDmaError, asError } from '../errors.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { MappingStatus } from './target.ts';

/**
 * What a target threw at a map, naming the target and the range. `ERR_MAPPING_REVOKED` is the state of a mapping that
 * was made: a refusal with that code becomes `ERR_MAP_FAILED`.
 *
 * @internal
 */
export function mapFailed(target: string, sub: SubMapping, thrown: unknown): PeerDmaError {
  const error = asError(thrown);
  const { code: said = 'ERR_MAP_FAILED', message, errno, syscall } = details(error);
  const code = said === 'ERR_MAPPING_REVOKED' ? 'ERR_MAP_FAILED' : said;
  if (error instanceof PeerDmaError && error.target !== undefined && error.range !== undefined && code === said) {
    return error;
  }
  return new PeerDmaError(code, `${target}: can't map ${what(sub)}: ${message}`, {
    errno,
    syscall,
    range: sub.range,
    target,
    cause: thrown,
  });
}

/** What a target threw at an unmap. Whatever its own code: it may still reach the memory. @internal */
export function unmapFailed(target: string, sub: SubMapping, thrown: unknown): PeerDmaError {
  const { message, errno, syscall } = details(asError(thrown));
  return new PeerDmaError(
    'ERR_UNMAP_FAILED',
    `${target}: can't unmap ${what(sub)}: ${message}. The device may still reach that memory, which is therefore kept until the target is closed`,
    { errno, syscall, range: sub.range, target, cause: thrown },
  );
}

/** What became of a mapping whose device went through something. @internal */
export function revoked(target: string, sub: SubMapping): PeerDmaError {
  return new PeerDmaError(
    'ERR_MAPPING_REVOKED',
    `${target}: ${what(sub)} is void: the device stopped decoding memory, slept or was reset since it was mapped. It is mapped anew when the device answers, or by refresh()`,
    { range: sub.range, target },
  );
}

/** The error of a mapping for which `isRevoked` failed. @internal */
export function revocationUnknown(target: string, sub: SubMapping, thrown: unknown): PeerDmaError {
  const why = `isRevoked failed: ${asError(thrown).message}`;
  return new PeerDmaError(
    'ERR_MAPPING_REVOKED',
    `${target}: ${what(sub)} may be void: ${why}. The next change there maps it anew`,
    { range: sub.range, target, cause: thrown },
  );
}

/** The refusal of private memory by a target that maps files. @internal */
export function fileRequired(target: string, sub: SubMapping): PeerDmaError {
  return new PeerDmaError(
    'ERR_FILE_REQUIRED',
    `${target} maps files only, and ${what(sub)} is private memory: back it with a MemoryFile`,
    { range: sub.range, target: target },
  );
}

/** So many problems are told in a message; all are in the cause. */
const TOLD = 3;

/** A failure whose undoing failed too. `problems` say what is not as it was. @internal */
export function rollbackFailed(error: unknown, problems: readonly Error[]): PeerDmaError {
  const first = error instanceof PeerDmaError ? error : undefined;
  const told = problems.slice(0, TOLD).map(({ message }) => message);
  if (problems.length > TOLD) told.push('…');
  return new PeerDmaError(
    'ERR_ROLLBACK_FAILED',
    `${asError(error).message}; and undoing the change failed in ${problems.length} place(s): ${told.join('; ')}`,
    {
      errno: first?.errno,
      syscall: first?.syscall,
      range: first?.range,
      target: first?.target,
      cause: new AggregateError([error, ...problems]),
    },
  );
}

/** The part of a status that says what went wrong. @internal */
export function statusOf(error: PeerDmaError | undefined): Partial<MappingStatus> {
  if (error === undefined) return {};
  return error.errno === undefined
    ? { code: error.code, reason: error.message }
    : { code: error.code, errno: error.errno, reason: error.message };
}

function what(sub: SubMapping): string {
  return `"${sub.name}" at ${sub.range}`;
}

function details(error: Error): Partial<Pick<PeerDmaError, 'code' | 'errno' | 'syscall'>> & { message: string } {
  return error instanceof PeerDmaError ? error : { message: error.message };
}
