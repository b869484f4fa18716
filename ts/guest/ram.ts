/**
 * RAM with the requested files, huge pages and NUMA nodes.
 */
import { AddressRange, requireAligned } from '../address-range.ts';
import { readArray, readOptions, requireBoolean, requireIndex } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { type Backing, type MemorySlice, type BackingOptions, openBacking } from '../memory/backing.ts';
import { MemoryFile, hugePageShift } from '../memory/memory-file.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { newRegion, requirePlace } from './new-region.ts';
import { DEFAULT_PRIORITY, type RegionState } from './region-state.ts';

/** A range of RAM. */
export interface RamOptions {
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

const PROPERTIES = ['start', 'length', 'file', 'private', 'hugePages', 'prefault', 'numaNode'] as const;

/** A checked copy of the options. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function readRam(ram: readonly RamOptions[]): RamOptions[] {
  return readArray(ram, 'the stretches of ram').map((one) => readOptions(one, PROPERTIES, 'a stretch of ram'));
}

/**
 * Adds and activates a region for each, in one change.
 *
 * @param ram checked by {@link requireApart}
 * @internal
 */
export async function addRam(space: GuestAddressSpace, ram: readonly RamOptions[]): Promise<void> {
  const opened: { readonly state: RegionState; readonly at: AddressRange; readonly memory: MemorySlice }[] = [];
  const files: MemoryFile[] = [];
  try {
    for (const [index, options] of ram.entries()) {
      const at = AddressRange.of(options.start, options.length);
      const name = `ram${index}`;
      requirePlace(space, at, name);
      const backing = backingFor(name, at, options);
      if (backing !== 'private' && options.file === undefined) files.push(backing.file);
      const memory = openBacking(backing, at.length, backingOptions(options));
      const state = newRegion(space, { name, length: at.length, kind: 'ram', priority: DEFAULT_PRIORITY.ram });
      opened.push({ state, at, memory });
    }
    await space.change((draft) => {
      for (const { state, at, memory } of opened) {
        draft.add(state);
        draft.addMapping(state.id, { range: AddressRange.between(0n, at.length), memory, writable: true });
        draft.activate(state.id, at, true);
      }
    });
  } catch (error) {
    for (const { memory } of opened) memory.owner.count(0);
    for (const file of files) file.close();
    throw error;
  }
  space.ownFiles(files);
  const eager = opened.filter((_, index) => ram[index]?.prefault === true);
  if (eager.length > 0) await space.prefault(eager.map(({ at }) => at));
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
    if (next?.overlaps(range) !== true) continue;
    throw new PeerDmaError('ERR_OVERLAP', `the RAM at ${next} overlaps that at ${range}: each address is RAM once`, {
      range: next,
    });
  }
  return ranges;
}

function backingFor(name: string, at: AddressRange, options: RamOptions): Backing {
  const { file, hugePages } = options;
  const pages = hugePages === undefined || hugePages === 'transparent' ? undefined : hugePages;
  if (pages !== undefined) hugePageShift(pages); // rejects other values
  if (pages !== undefined && (file !== undefined || options.private === true)) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `${name}: hugePages '${pages}' makes a file of such pages, so neither file nor private can be given with it`,
    );
  }
  requireBoolean(options.private ?? false, 'private');
  requireBoolean(options.prefault ?? false, 'prefault');
  if (options.numaNode !== undefined) requireIndex(options.numaNode, 'numaNode');
  if (options.private === true) {
    if (file === undefined) return 'private';
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${name}: either a file or private, not both`);
  }
  if (file !== undefined) return { file, offset: 0n };
  if (pages !== undefined) requireAligned(at, 1n << BigInt(hugePageShift(pages)), `${name} at`);
  const made = MemoryFile.create(options.length, pages === undefined ? { name } : { name, hugePages: pages });
  return { file: made, offset: 0n };
}

function backingOptions({ hugePages, numaNode }: RamOptions): BackingOptions {
  const transparentHugePages = hugePages === 'transparent';
  return numaNode === undefined ? { transparentHugePages } : { transparentHugePages, numaNode };
}
