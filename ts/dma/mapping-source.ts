/**
 * Where the memory of a request comes from, for a target that knows how it wants it.
 */
import { PeerDmaError } from '../errors.ts';
import { type HostMemory, leaseOf } from '../memory/host-memory.ts';
import type { MemoryFile } from '../memory/memory-file.ts';
import type { DmaMapRequest, DmaTarget } from './target.ts';

/** Memory of this process, or a file from an offset on. @internal */
export type MappingSource =
  | { readonly hostMemory: HostMemory }
  | { readonly hostMemory?: undefined; readonly file: MemoryFile; readonly offset: bigint };

/**
 * @param needsVa as {@link DmaTarget.needsVa}: what the target takes by its place in this process
 * @throws {PeerDmaError} `ERR_HOST_MEMORY_REQUIRED`; `ERR_INVALID_ARGUMENT` where it is not the memory of the range
 * @internal
 */
export function mappingSource(target: string, request: DmaMapRequest, needsVa: DmaTarget['needsVa']): MappingSource {
  const { backing } = request;
  if (needsVa === 'private' && backing !== 'private') return { file: backing.file, offset: backing.offset };
  return { hostMemory: requireHostMemory(target, request) };
}

/** @internal */
export function requireHostMemory(target: string, { range, name, hostMemory }: DmaMapRequest): HostMemory {
  if (hostMemory === undefined) {
    throw new PeerDmaError(
      'ERR_HOST_MEMORY_REQUIRED',
      `${target}: can't map "${name}" at ${range} without host memory: register the target with needsVa set`,
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
