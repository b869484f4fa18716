/**
 * An IOMMU address space of the kernel as a {@link DmaTarget}. Guest memory maps each address to the host memory at
 * that address alone; tests of the kernel's answers map any host memory at any IOVA.
 */
import type { NativeMemoryFile } from '#native';
import type { AddressRange, DmaMapRequest, DmaTarget } from '../../ts/index.ts';
import { throwIf } from '../../ts/errors.ts';
import { mappingSource } from '../../ts/dma/mapping-source.ts';
import type { SubMapping } from '../../ts/dma/sub-mapping.ts';
import { leaseOf } from '../../ts/memory/host-memory.ts';
import { fileMemoryOf } from '../../ts/memory/memory-file.ts';
import type { EncodedBatch, KernelTarget } from '../../ts/dma/kernel-target.ts';

export function asDmaTarget(target: KernelTarget & Pick<DmaTarget, 'isRevoked'>): DmaTarget {
  const mapAll = async (requests: readonly DmaMapRequest[]): Promise<void> => {
    const subs = requests.map(subOf);
    for (const sub of subs) throwIf(target['refusal'](sub)); // as map() of the target does before it makes a batch
    const failure = await target.mapBatch(subs, encodedBatch(target, requests), true);
    if (failure !== undefined) throw failure.error;
  };
  const unmapDma = async (range: AddressRange): Promise<void> => {
    const [failure] = await target.unmap([{ range, name: 'a range' } as SubMapping], { afterFailure: 'continue' });
    if (failure !== undefined) throw failure.error;
  };
  return {
    name: target.name,
    needsVa: target.needsVa,
    iovaRanges: () => target.iovaRanges(),
    mapDma: (request) => mapAll([request]),
    mapDmaBatch: mapAll,
    unmapDma,
    ...(target.isRevoked === undefined ? {} : { isRevoked: (range) => target.isRevoked?.(range) === true }),
  };
}

function subOf({ range, writable, kind, name, backing }: DmaMapRequest): SubMapping {
  const memory = backing === 'private' ? {} : { file: fileMemoryOf(backing.file), offset: backing.offset };
  return { range, writable, kind, name, memory, regionId: 0 } as SubMapping;
}

/**
 * Requests of four words.
 *
 * IOVA, length, flags (1: writable, 2: a file, its number from bit 32 on), offset.
 */
function encodedBatch(target: KernelTarget, requests: readonly DmaMapRequest[]): EncodedBatch {
  const files: NativeMemoryFile[] = [];
  let reservation: EncodedBatch['reservation'];
  const words = requests.flatMap((request) => {
    const { range, writable } = request;
    const source = mappingSource(target.name, request, target.needsVa);
    const flags = writable ? 1n : 0n;
    if (source.hostMemory === undefined) {
      const which = BigInt(files.push(source.file.handle) - 1);
      return [range.start, range.length, flags | 2n | (which << 32n), source.offset];
    }
    const lease = leaseOf(source.hostMemory);
    ({ reservation } = lease);
    return [range.start, range.length, flags, lease.offset];
  });
  return { reservation, files, requests: BigUint64Array.from(words) };
}
