/**
 * An IOMMU in memory that obeys the rules of Linux VFIO type1v2, with the device's side of it: for tests, for examples,
 * and for a VMM's emulated devices.
 */
import { AddressRange, hex } from '../address-range.ts';
import { requireBytes, requireCount } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import { type IommuLimits, refusedMapping, requireHostMemory } from './refusal.ts';
import type { DmaMapRequest, DmaTarget, MappingStatus } from './target.ts';

/** What an Intel IOMMU of 48 bits reports: all but the window in which writes are interrupts. */
const DEFAULT_IOVA_RANGES = [
  AddressRange.between(0n, 0xfee00000n),
  AddressRange.between(0xfef00000n, 1n << 48n),
] as const;

/** The default `dma_entry_limit` of Linux `vfio_iommu_type1`. */
const DEFAULT_MAX_MAPPINGS = 65535;

interface Entry {
  readonly range: AddressRange;
  readonly request: DmaMapRequest;
  readonly memory: HostMemory;
}

/** Maps what it is told, and lets a test or an emulated device do DMA by IOVA. */
export class SimulatedIommu implements DmaTarget {
  readonly name: string;
  /** As VFIO type1 does, it takes memory by its place in this process. */
  readonly needsVa = true;
  readonly #limits: IommuLimits;
  readonly #maxMappings: number;
  readonly #entries = new IntervalMap<Entry>();

  /**
   * @param options.pageSize the smallest page it maps, in bytes. Default: 4096
   * @param options.iovaRanges what it can map. Default: 48 bits less the MSI window 0xfee00000..0xfef00000
   * @param options.maxMappings default: 65535, as `dma_entry_limit` of Linux
   */
  constructor(
    options: {
      name?: string;
      rules?: 'type1v2';
      pageSize?: bigint;
      iovaRanges?: readonly AddressRange[];
      maxMappings?: number;
    } = {},
  ) {
    const { rules = 'type1v2', pageSize = 4096n, iovaRanges = DEFAULT_IOVA_RANGES } = options;
    if (rules !== 'type1v2') {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `the rules that can be simulated are 'type1v2', not '${String(rules)}'`,
      );
    }
    const { maxMappings = DEFAULT_MAX_MAPPINGS } = options;
    if (typeof pageSize !== 'bigint' || pageSize < 4096n || (pageSize & (pageSize - 1n)) !== 0n) {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `a page size is a power of two from 4096n, not ${String(pageSize)}`,
      );
    }
    if (!Number.isSafeInteger(maxMappings) || maxMappings < 0) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `maxMappings is a whole number, not ${String(maxMappings)}`);
    }
    if (!Array.isArray(iovaRanges) || !iovaRanges.every((range) => range instanceof AddressRange)) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'iovaRanges are AddressRanges');
    }
    this.name = options.name ?? 'simulated-iommu';
    this.#limits = { pageSize, iovaRanges };
    this.#maxMappings = maxMappings;
  }

  /** The checks and their order are the kernel's: Linux `vfio_dma_do_map`. */
  mapDma(request: DmaMapRequest): void {
    const { range } = request;
    const memory = requireHostMemory(this.name, request);
    const errno = this.#refuse(range);
    if (errno !== undefined) {
      throw refusedMapping(request, { errno, target: this.name, limits: this.#limits });
    }
    this.#entries.insert({ range, request, memory });
  }

  mapDmaBatch(requests: readonly DmaMapRequest[]): void {
    for (const [done, request] of requests.entries()) {
      try {
        this.mapDma(request);
      } catch (error) {
        for (const { range } of requests.slice(0, done)) this.unmapDma(range);
        throw error;
      }
    }
  }

  /**
   * Unmaps every mapping within the range; gaps are fine.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED` with `EINVAL` where it would cut a mapping; nothing is unmapped then
   */
  unmapDma(range: AddressRange): void {
    const within = this.#entries.overlapping(range);
    const cut = within.find((entry) => !range.contains(entry.range));
    const { pageSize } = this.#limits;
    if (cut !== undefined || range.start % pageSize !== 0n || range.end % pageSize !== 0n) {
      throw new PeerDmaError(
        'ERR_UNMAP_FAILED',
        `${this.name}: can't unmap ${range}: EINVAL: ${cut === undefined ? `not whole pages of ${pageSize} bytes` : `it would cut the mapping ${cut.range}`}`,
        { errno: 'EINVAL', range, target: this.name },
      );
    }
    for (const entry of within) this.#entries.remove(entry);
  }

  /**
   * What a device reads by DMA. It may cross from one mapping to the next.
   *
   * @throws {PeerDmaError} `ERR_DMA_FAULT` where nothing is mapped
   */
  read(iova: bigint, length: number): Uint8Array {
    if (requireCount(length) === 0) return new Uint8Array();
    const range = AddressRange.of(iova, BigInt(length));
    const parts = this.#access(range, 'read');
    const bytes = new Uint8Array(length);
    for (const { value, part } of parts) {
      const piece = value.memory.read(part.start - value.range.start, Number(part.length));
      bytes.set(piece, Number(part.start - range.start));
    }
    return bytes;
  }

  /**
   * What a device writes by DMA.
   *
   * @throws {PeerDmaError} `ERR_DMA_FAULT` where nothing is mapped, or for reading only; no byte is written then
   */
  write(iova: bigint, bytes: Uint8Array): void {
    if (requireBytes(bytes).length === 0) return;
    const range = AddressRange.of(iova, BigInt(bytes.length));
    for (const { value, part } of this.#access(range, 'write')) {
      const piece = bytes.subarray(Number(part.start - range.start), Number(part.end - range.start));
      value.memory.write(part.start - value.range.start, piece);
    }
  }

  /** What is mapped, in order of IOVA. */
  mappings(): MappingStatus[] {
    return this.#entries.values().map(({ range, request }) => ({
      range,
      kind: request.kind,
      name: request.name,
      state: 'mapped',
    }));
  }

  /** What the kernel would say; pinning can't fail here, since the memory was faulted in and its lease keeps it. */
  #refuse(range: AddressRange): string | undefined {
    const { pageSize, iovaRanges } = this.#limits;
    if (range.start % pageSize !== 0n || range.end % pageSize !== 0n) return 'EINVAL';
    if (this.#entries.firstIn(range) !== undefined) return 'EEXIST';
    if (this.#entries.size >= this.#maxMappings) return 'ENOSPC';
    if (!iovaRanges.some((valid) => valid.contains(range))) return 'EINVAL';
    return undefined;
  }

  /** What DMA to the range goes through; nothing of it is done if a part of it faults. */
  #access(range: AddressRange, access: 'read' | 'write'): { value: Entry; part: AddressRange }[] {
    const { parts, gap } = this.#entries.cover(range);
    const readOnly = access === 'write' ? parts.find(({ value }) => !value.request.writable) : undefined;
    if (readOnly !== undefined) throw this.#fault(range, access, `${readOnly.value.range} is mapped for reading only`);
    if (gap !== undefined) throw this.#fault(range, access, `nothing is mapped at ${hex(gap)}`);
    return parts;
  }

  #fault(range: AddressRange, access: string, why: string): PeerDmaError {
    return new PeerDmaError('ERR_DMA_FAULT', `${this.name}: DMA ${access} of ${range} faulted: ${why}`, {
      range,
      target: this.name,
    });
  }
}
