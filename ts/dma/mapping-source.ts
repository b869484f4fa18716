/**
 * The memory of a request in the form that a target maps: host memory, or a file.
 */
import { PeerDmaError } from '../errors.ts';
import { type HostMemory, leaseOf } from '../memory/host-memory.ts';
import type { SharedFile } from '../memory/shared-file.ts';
import { fileMemoryOf } from '../memory/memory-file.ts';
import type { DmaMapRequest, DmaTarget } from './target.ts';

/** Host memory, or a file from an offset on. @internal */
export type MappingSource =
  | { readonly hostMemory: HostMemory }
  | { readonly hostMemory?: undefined; readonly file: SharedFile; readonly offset: bigint };

/**
 * Selects the memory of a request.
 *
 * @param needsVa as {@link DmaTarget.needsVa}: the memory that the target maps by its host virtual address
 * @throws {PeerDmaError} `ERR_HOST_MEMORY_REQUIRED`; `ERR_INVALID_ARGUMENT` if the host memory does not fit the range
 * @internal
 */
export function mappingSource(target: string, request: DmaMapRequest, needsVa: DmaTarget['needsVa']): MappingSource {
  const { backing } = request;
  if (needsVa === 'private' && backing !== 'private')
    return { file: fileMemoryOf(backing.file), offset: backing.offset };
  return { hostMemory: requireHostMemory(target, request) };
}

/** @internal */
export function requireHostMemory(target: string, { range, name, hostMemory }: DmaMapRequest): HostMemory {
  if (hostMemory === undefined) {
    throw new PeerDmaError(
      'ERR_HOST_MEMORY_REQUIRED',
      `${target}: cannot map "${name}" at ${range}: it has no host memory. Set needsVa: true on the target`,
      { range, target },
    );
  }
  leaseOf(hostMemory);
  if (hostMemory.length !== range.length) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `${target}: the host memory for "${name}" has ${hostMemory.length} bytes, ${range} has ${range.length}`,
      { range, target },
    );
  }
  return hostMemory;
}
