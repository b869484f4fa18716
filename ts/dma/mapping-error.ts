/**
 * Errors of DMA targets, told so that target, region and range are always in them.
 */
import { PeerDmaError, asError } from '../errors.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { DmaTarget, MappingStatus } from './target.ts';

/** What a target threw at a map, naming the target and the range. @internal */
export function mapFailed(target: DmaTarget, sub: SubMapping, thrown: unknown): PeerDmaError {
  return tell('ERR_MAP_FAILED', `can't map ${what(sub)}`, target, sub, thrown);
}

/** What a target threw at an unmap. Whatever its own code: it may still reach the memory. @internal */
export function unmapFailed(target: DmaTarget, sub: SubMapping, thrown: unknown): PeerDmaError {
  const { message, errno, syscall } = details(thrown);
  return new PeerDmaError(
    'ERR_UNMAP_FAILED',
    `${target.name}: can't unmap ${what(sub)}: ${message}. The device may still reach that memory, which is therefore kept until the target is closed`,
    { errno, syscall, range: sub.range, target: target.name, cause: thrown },
  );
}

/** The refusal of private memory by a target that maps files. @internal */
export function fileRequired(target: DmaTarget, sub: SubMapping): PeerDmaError {
  return new PeerDmaError(
    'ERR_FILE_REQUIRED',
    `${target.name} maps files only, and ${what(sub)} is private memory: back it with a MemoryFile`,
    { range: sub.range, target: target.name },
  );
}

/** A failure whose undoing failed too. `problems` say what is not as it was. @internal */
export function rollbackFailed(error: unknown, problems: readonly Error[]): PeerDmaError {
  const first = error instanceof PeerDmaError ? error : undefined;
  return new PeerDmaError(
    'ERR_ROLLBACK_FAILED',
    `${asError(error).message}; and undoing the change failed in ${problems.length} place(s): ${problems.map((problem) => problem.message).join('; ')}`,
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

function tell(
  fallback: 'ERR_MAP_FAILED',
  doing: string,
  target: DmaTarget,
  sub: SubMapping,
  thrown: unknown,
): PeerDmaError {
  if (thrown instanceof PeerDmaError && thrown.target !== undefined && thrown.range !== undefined) return thrown;
  const { code, message, errno, syscall } = details(thrown);
  return new PeerDmaError(code ?? fallback, `${target.name}: ${doing}: ${message}`, {
    errno,
    syscall,
    range: sub.range,
    target: target.name,
    cause: thrown,
  });
}

function what(sub: SubMapping): string {
  return `"${sub.name}" at ${sub.range}`;
}

function details(thrown: unknown): Partial<Pick<PeerDmaError, 'code' | 'errno' | 'syscall'>> & { message: string } {
  return thrown instanceof PeerDmaError ? thrown : { message: asError(thrown).message };
}
