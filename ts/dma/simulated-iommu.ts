/**
 * An IOMMU in memory that follows the rules of Linux VFIO type1v2 or of iommufd. It has DMA from the device's side, for
 * tests, examples, and emulated devices of a VMM.
 */
import { AddressRange, hex, isRange, requireRange } from '../address-range.ts';
import { newBytes, readArray, readOptions, requireBoolean, requireBytes, requireCount } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { requireBigint, requireNumber } from '../number-types.ts';
import { IntervalMap } from '../interval-map.ts';
import { readBacking } from '../memory/backing.ts';
import { fileMemoryOf } from '../memory/memory-file.ts';
import { IOMMU_RULES, type IommuRules, type IommuRulesName } from './iommu-rules.ts';
import { type MappingSource, mappingSource } from './mapping-source.ts';
import { type IommuLimits, refusedMapping } from './refusal.ts';
import { SimulatedMapping } from './simulated-mapping.ts';
import type { DmaMapRequest, DmaTarget, MappingStatus } from './target.ts';
import { valueText } from '../value-text.ts';

/** The ranges that an Intel IOMMU of 48 bits reports. Writes to the window between them are interrupts. */
const DEFAULT_IOVA_RANGES = [
  AddressRange.between(0n, 0xfee00000n),
  AddressRange.between(0xfef00000n, 1n << 48n),
] as const;

/** Options of a {@link SimulatedIommu}. */
export interface SimulatedIommuOptions {
  /** Name in errors and in `GuestMemory.inspect()`. Default: `simulated-iommu` */
  readonly name?: string;
  /** The rules that it follows. Default: `type1v2` */
  readonly rules?: IommuRulesName;
  /** The smallest page that it maps, in bytes: a power of two from 4096n on. Default: 4096n */
  readonly pageSize?: bigint;
  /** The IOVAs that it can map. Default: 48 bits less the MSI window 0xfee00000..0xfef00000 */
  readonly iovaRanges?: readonly AddressRange[];
  /**
   * The maximum number of mappings, or `Infinity`. Default: for type1v2 65535, as `dma_entry_limit` of Linux; for
   * iommufd `Infinity`
   */
  readonly maxMappings?: number;
}

/** A DMA target that a test or an emulated device can access by IOVA. */
export class SimulatedIommu implements DmaTarget {
  readonly name: string;
  /** As in the kernel: type1v2 maps memory by its host virtual address, iommufd maps files. */
  readonly needsVa: true | 'private';
  readonly #rules: IommuRules;
  readonly #limits: IommuLimits;
  readonly #maxMappings: number;
  readonly #mappings = new IntervalMap<SimulatedMapping>();

  /** Makes an IOMMU without mappings. */
  constructor(options: SimulatedIommuOptions = {}) {
    const given = readOptions(options, ['name', 'rules', 'pageSize', 'iovaRanges', 'maxMappings']);
    const { name = 'simulated-iommu', rules = 'type1v2', pageSize = 4096n } = given;
    if (typeof name !== 'string' || name === '') {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the name of an IOMMU is a string, not ${valueText(name)}`);
    }
    if (typeof rules !== 'string' || !Object.hasOwn(IOMMU_RULES, rules)) {
      const known = Object.keys(IOMMU_RULES).join("' and '");
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `the rules that can be simulated are '${known}', not '${valueText(rules)}'`,
      );
    }
    this.#rules = IOMMU_RULES[rules];
    const { maxMappings = this.#rules.maxMappings } = given;
    requireBigint(pageSize, 'pageSize');
    requireNumber(maxMappings, 'maxMappings');
    if (pageSize < 4096n || (pageSize & (pageSize - 1n)) !== 0n) {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `a page size is a power of two from 4096n, not ${valueText(pageSize)}`,
      );
    }
    if (maxMappings !== Infinity && (!Number.isSafeInteger(maxMappings) || maxMappings < 0)) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `maxMappings is a whole number, not ${valueText(maxMappings)}`);
    }
    const iovaRanges = readArray(given.iovaRanges ?? DEFAULT_IOVA_RANGES, 'iovaRanges');
    if (!iovaRanges.every(isRange)) throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'iovaRanges are AddressRanges');
    this.name = name;
    this.needsVa = this.#rules.needsVa;
    this.#limits = { pageSize, iovaRanges };
    this.#maxMappings = maxMappings;
  }

  iovaRanges(): readonly AddressRange[] {
    return this.#limits.iovaRanges;
  }

  /** The checks and their order are the kernel's: Linux `vfio_dma_do_map`, `iopt_map_pages`. */
  mapDma(given: DmaMapRequest): void {
    const request = readRequest(given);
    const source = mappingSource(this.name, request, this.needsVa);
    const errno = this.#errnoOf(request, source);
    if (errno !== undefined) {
      throw refusedMapping(request, { errno, target: this.name, limits: this.#limits });
    }
    this.#mappings.insert(new SimulatedMapping(request, source, this.#rules));
  }

  mapDmaBatch(requests: readonly DmaMapRequest[]): void {
    const batch = readArray(requests, 'the requests of a batch').map(readRequest);
    for (const [done, request] of batch.entries()) {
      try {
        this.mapDma(request);
      } catch (error) {
        for (const { range } of batch.slice(0, done)) this.unmapDma(range);
        throw error;
      }
    }
  }

  /**
   * Unmaps every mapping within the range, which may have gaps.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED` if it would cut a mapping; nothing is unmapped then
   */
  unmapDma(range: AddressRange): void {
    requireRange(range);
    const within = this.#mappings.overlapping(range);
    const cut = within.find((mapping) => !range.contains(mapping.range));
    const { pageSize } = this.#limits;
    if (cut !== undefined || range.start % pageSize !== 0n || range.end % pageSize !== 0n) {
      const errno = this.#rules.cut;
      const reason =
        cut === undefined ? `not whole pages of ${pageSize} bytes` : `it would cut the mapping ${cut.range}`;
      throw new PeerDmaError(
        'ERR_UNMAP_FAILED',
        `${this.name}: cannot unmap ${range}: ${errno === undefined ? '' : `${errno}: `}${reason}`,
        { errno, range, target: this.name },
      );
    }
    for (const mapping of within) {
      this.#mappings.remove(mapping);
      mapping.release();
    }
  }

  /**
   * Whether the mapping at that range is revoked. The kernel's iommufd revokes mappings of a BAR when its device is off
   * or reset.
   */
  isRevoked(range: AddressRange): boolean {
    requireRange(range);
    return this.#mappings.startingAt(range.start)?.isRevoked === true;
  }

  /**
   * Reads by DMA, as a device does. The range may span adjacent mappings.
   *
   * @param iova the first address
   * @param length bytes
   * @throws {PeerDmaError} `ERR_DMA_FAULT` if part of the range is not mapped
   */
  read(iova: bigint, length: number): Uint8Array {
    requireBigint(iova, 'iova');
    if (requireCount(length) === 0) return new Uint8Array();
    const range = AddressRange.of(iova, BigInt(length));
    const parts = this.#access(range, 'read');
    const bytes = newBytes(length, this.name);
    for (const { value, part } of parts) {
      const piece = value.read(part.start - value.range.start, Number(part.length));
      bytes.set(piece, Number(part.start - range.start));
    }
    return bytes;
  }

  /**
   * Writes by DMA, as a device does.
   *
   * @param iova the first address
   * @throws {PeerDmaError} `ERR_DMA_FAULT` if part of the range is not mapped or is read-only; no byte is written then
   */
  write(iova: bigint, bytes: Uint8Array): void {
    requireBigint(iova, 'iova');
    if (requireBytes(bytes).length === 0) return;
    const range = AddressRange.of(iova, BigInt(bytes.length));
    for (const { value, part } of this.#access(range, 'write')) {
      const piece = bytes.subarray(Number(part.start - range.start), Number(part.end - range.start));
      value.write(part.start - value.range.start, piece);
    }
  }

  /** Returns all mappings, in order of IOVA. */
  mappings(): MappingStatus[] {
    return this.#mappings.values().map(({ range, request }) => ({
      range,
      kind: request.kind,
      region: request.name,
      state: 'mapped',
    }));
  }

  /**
   * Returns the errno with which the kernel would reject a request, if it would. Host memory is never rejected as
   * missing: it is faulted in and leased.
   */
  #errnoOf({ range, backing }: DmaMapRequest, source: MappingSource): string | undefined {
    const { pageSize, iovaRanges } = this.#limits;
    if (range.start % pageSize !== 0n || range.end % pageSize !== 0n) return 'EINVAL';
    const device = backing === 'private' ? undefined : fileMemoryOf(backing.file).device;
    const off = device?.accessible === false;
    // iommufd checks the file before the IOVAs; type1 pins memory last.
    if (off && source.hostMemory === undefined) return this.#rules.deviceOff;
    if (this.#mappings.firstIn(range) !== undefined) return 'EEXIST';
    if (this.#mappings.size >= this.#maxMappings) return 'ENOSPC';
    if (!iovaRanges.some((valid) => valid.contains(range))) return 'EINVAL';
    if (off) return this.#rules.deviceOff;
    const short = source.hostMemory === undefined && !device && !source.file.reaches(source.offset + range.length);
    return short ? this.#rules.pastEnd : undefined;
  }

  /** Returns the mappings that DMA to the range accesses. Throws before any access if a part of it would fault. */
  #access(range: AddressRange, access: 'read' | 'write'): { value: SimulatedMapping; part: AddressRange }[] {
    const { parts, gap } = this.#mappings.cover(range);
    const readOnly = access === 'write' ? parts.find(({ value }) => !value.request.writable) : undefined;
    if (readOnly !== undefined) throw this.#fault(range, access, `${readOnly.value.range} is mapped for reading only`);
    if (gap !== undefined) throw this.#fault(range, access, `nothing is mapped at ${hex(gap)}`);
    const revoked = parts.find(({ value }) => value.isRevoked);
    if (revoked !== undefined) {
      throw this.#fault(range, access, `the device at ${revoked.value.range} was switched off or reset`);
    }
    return parts;
  }

  #fault(range: AddressRange, access: string, why: string): PeerDmaError {
    return new PeerDmaError('ERR_DMA_FAULT', `${this.name}: DMA ${access} of ${range} faulted: ${why}`, {
      range,
      target: this.name,
    });
  }
}

/** Checks and copies a request: it need not come from guest memory. */
function readRequest(request: DmaMapRequest): DmaMapRequest {
  const names = ['range', 'hostMemory', 'backing', 'writable', 'kind', 'name'] as const;
  const { range, hostMemory, backing, writable, kind, name } = readOptions(request, names, 'a request');
  requireRange(range);
  requireBoolean(writable, 'writable');
  if (typeof name !== 'string' || (kind !== 'ram' && kind !== 'device')) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', "a request has a name, and is of the kind 'ram' or 'device'");
  }
  const common = { range, backing: readBacking(backing), writable, kind, name };
  return hostMemory === undefined ? common : { ...common, hostMemory };
}
