/**
 * The memory of the guest that a back end maps, and the messages that add and remove it.
 */
import { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import type { MemoryFile } from '../memory/memory-file.ts';
import type { Message } from './message.ts';
import { type MemoryRegion, regionTable, singleRegion } from './payloads.ts';

/** A region, with its file. @internal */
export interface MappedRegion extends MemoryRegion {
  readonly range: AddressRange;
  readonly file: MemoryFile;
}

/** @internal */
export class MemoryTable {
  readonly #name: string;
  readonly #regions = new Map<bigint, MappedRegion>();

  /** @param name of the target, for messages */
  constructor(name: string) {
    this.#name = name;
  }

  /** @throws {PeerDmaError} `ERR_MAPPING_LIMIT` if there are more than `limit`: nothing is added then */
  add(regions: readonly MappedRegion[], limit: number): void {
    this.requireLimit(limit, regions);
    for (const region of regions) this.#regions.set(region.start, region);
  }

  /** @param added regions in addition @throws {PeerDmaError} `ERR_MAPPING_LIMIT` */
  requireLimit(limit: number, added: readonly MappedRegion[] = []): void {
    if (this.#regions.size + added.length <= limit) return;
    const range = added[0]?.range;
    const message = `${this.#name}: mapping failed: the back end maps at most ${limit} ranges of memory`;
    const remedy = 'Use fewer mappings, or another back end';
    throw new PeerDmaError('ERR_MAPPING_LIMIT', `${message}. ${remedy}`, { target: this.#name, range });
  }

  remove(regions: readonly MemoryRegion[]): void {
    for (const { start } of regions) this.#regions.delete(start);
  }

  /** The regions in order of address. */
  all(): MappedRegion[] {
    return [...this.#regions.values()].sort((a, b) => (a.start < b.start ? -1 : 1));
  }

  /** @throws {PeerDmaError} `ERR_NOT_MAPPED` */
  at({ start, length }: AddressRange): MappedRegion {
    const region = this.#regions.get(start);
    if (region?.length === length) return region;
    const range = AddressRange.of(start, length);
    const message = `${this.#name}: unmapping ${range} failed: no mapping has exactly this range. Unmap whole mappings`;
    throw new PeerDmaError('ERR_NOT_MAPPED', message, { target: this.#name, range });
  }

  /** Returns the region that contains all of a range. */
  regionOf(range: AddressRange): MappedRegion | undefined {
    for (const region of this.#regions.values()) if (region.range.contains(range)) return region;
    return undefined;
  }
}

/** The messages that add regions. @internal */
export function addRegions(regions: readonly MappedRegion[]): Message[] {
  // Many regions are of few files, and each descriptor is a call of the native core.
  const descriptors = new Map<MemoryFile, readonly number[]>();
  return regions.map((region) => {
    const { file } = region;
    let descriptor = descriptors.get(file);
    if (descriptor === undefined) descriptors.set(file, (descriptor = [file.fd]));
    return { request: 'ADD_MEM_REG', payload: singleRegion(region), descriptors: descriptor };
  });
}

/** @internal */
export function removeRegion(region: MemoryRegion): Message {
  return { request: 'REM_MEM_REG', payload: singleRegion(region) };
}

/** Replaces all regions. @param regions at most 8 @internal */
export function setRegions(regions: readonly MappedRegion[]): Message {
  return { request: 'SET_MEM_TABLE', payload: regionTable(regions), descriptors: regions.map(({ file }) => file.fd) };
}
