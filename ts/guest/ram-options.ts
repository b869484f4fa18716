/**
 * The options of RAM, and their checks.
 */
import { AddressRange, hex, requireAligned } from '../address-range.ts';
import { readArray, readOptions, requireBoolean, requireIndex } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { type MemoryFile, hugePageShift } from '../memory/memory-file.ts';
import { hostPageSize } from '../memory/page-size.ts';
import { requireBigint } from '../number-types.ts';
import { valueText } from '../value-text.ts';

/** A range of RAM. */
export interface RamOptions {
  /** For errors, {@link GuestMemory.inspect} and events. Default: `ram0`, `ram1`, … in the order of addition */
  readonly name?: string;
  /** Guest-physical address; a multiple of the page size. */
  readonly start: bigint;
  /** Bytes; whole pages. */
  readonly length: bigint;
  /** The file to use, from its beginning. Default: a new memfd, which targets that map files can map. */
  readonly file?: MemoryFile;
  /** Anonymous memory of this process alone. */
  readonly private?: boolean;
  /** `transparent` requests huge pages if possible. The administrator has to reserve those of the other sizes. */
  readonly hugePages?: 'transparent' | '2M' | '1G';
  /** Fault all of it in now, instead of when the first target maps it. */
  readonly prefault?: boolean;
  /** Take the pages from this NUMA node. */
  readonly numaNode?: number;
}

/**
 * A range of RAM whose blocks are plugged and unplugged.
 *
 * With `prefault`, {@link PluggableRam.plug} faults the blocks in.
 */
export interface PluggableRamOptions extends RamOptions {
  /**
   * Bytes of a block: a power of two, from the page size of the memory on.
   *
   * `start` and `length` are multiples of it.
   */
  readonly blockSize: bigint;
  /** Guest-physical addresses of the blocks that are plugged at first. Default: none */
  readonly plugged?: readonly AddressRange[];
  /**
   * The most bytes of an IOMMU mapping or memory slot; a multiple of `blockSize`.
   *
   * A larger value makes fewer mappings: blocks that are plugged in one call share one, up to the next multiple of it.
   * Unplugging a part of a mapping unmaps the rest of it for a moment, too. Default: `blockSize`, or as often twice it
   * as it takes to have at most 8,192 mappings
   */
  readonly mappingSize?: bigint;
}

const RAM = ['name', 'start', 'length', 'file', 'private', 'hugePages', 'prefault', 'numaNode'] as const;
const BLOCKS = ['blockSize', 'plugged', 'mappingSize'] as const;

/** The most mappings with the default of `mappingSize`. A machine of KVM has slots for three times as many. */
const DEFAULT_MAPPINGS = 8192n;

/** The blocks of pluggable RAM. @internal */
export interface Blocks {
  /** Bytes; a power of two. */
  readonly size: bigint;
  /** The most bytes of a mapping; a multiple of `size`. */
  readonly mappingSize: bigint;
}

/** A checked copy of the options. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function readRam(options: RamOptions): RamOptions {
  return readOptions(options, RAM, 'a stretch of ram');
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function readRams(ram: readonly RamOptions[]): RamOptions[] {
  return readArray(ram, 'the stretches of ram').map(readRam);
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE` @internal */
export function readPluggableRam(options: PluggableRamOptions): {
  ram: RamOptions;
  blocks: Blocks;
  plugged: readonly AddressRange[];
} {
  const { blockSize: size, plugged = [], mappingSize, ...ram } = readOptions(options, [...RAM, ...BLOCKS], 'ram');
  const range = AddressRange.of(ram.start, ram.length);
  requireBigint(size, 'blockSize');
  if (size < hostPageSize() || size > range.length || (size & (size - 1n)) !== 0n) {
    const form = `a power of two from a page (${hostPageSize()}n) to the length of the RAM`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `blockSize is ${form}, not ${valueText(size)}`);
  }
  requireAligned(range, size, 'pluggable RAM at');
  const blocks = { size, mappingSize: mappingSize ?? defaultMappingSize(range.length, size) };
  requireBigint(blocks.mappingSize, 'mappingSize');
  if (blocks.mappingSize < size || blocks.mappingSize % size !== 0n) {
    const text = `mappingSize is a multiple of blockSize (${hex(size)}), not ${valueText(mappingSize)}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
  }
  return { ram, blocks, plugged: readArray(plugged, 'the plugged ranges') };
}

function defaultMappingSize(length: bigint, blockSize: bigint): bigint {
  let size = blockSize;
  while (length / size > DEFAULT_MAPPINGS) size *= 2n;
  return size;
}

/**
 * The guest-physical addresses of RAM, which must not overlap. Otherwise the guest would have less RAM than requested.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE`, `ERR_OUT_OF_RANGE`, `ERR_OVERLAP`
 * @internal
 */
export function requireApart(ram: readonly RamOptions[]): AddressRange[] {
  const ranges = ram.map(({ start, length }) => AddressRange.of(start, length));
  ranges.sort((a, b) => (a.start < b.start ? -1 : 1));
  for (const [index, range] of ranges.entries()) {
    const next = ranges[index + 1];
    if (next?.overlaps(range) === true) throw overlappingRam(next, `that at ${range}`);
  }
  return ranges;
}

/** @param other the memory that is there @internal */
export function overlappingRam(range: AddressRange, other: string): PeerDmaError {
  return new PeerDmaError('ERR_OVERLAP', `the RAM at ${range} overlaps ${other}: each address is RAM once`, { range });
}

/** Checks options that exclude one another. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function requireConsistent(name: string, options: RamOptions): void {
  const { file, hugePages } = options;
  requireBoolean(options.private ?? false, 'private');
  requireBoolean(options.prefault ?? false, 'prefault');
  if (options.numaNode !== undefined) requireIndex(options.numaNode, 'numaNode');
  const isReserved = hugePages !== undefined && hugePages !== 'transparent';
  if (isReserved) hugePageShift(hugePages); // rejects other values
  if (isReserved && (file !== undefined || options.private === true)) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `${name}: hugePages '${hugePages}' makes a file of such pages, so neither file nor private can be given with it`,
    );
  }
  if (options.private === true && file !== undefined) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${name}: either a file or private, not both`);
  }
}
