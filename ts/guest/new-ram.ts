/**
 * Adds RAM to guest memory: opens its memory, and adds its regions in one change.
 */
import { AddressRange, hex, requireAligned } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { type Backing, type MemorySlice, faultInMemory, openBacking } from '../memory/backing.ts';
import { MemoryFile, fileMemoryOf, hugePageShift } from '../memory/memory-file.ts';
import { hostPageSize } from '../memory/page-size.ts';
import { native } from '../native-call.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import type { MemoryMapDraft } from './memory-map.ts';
import { newRegion, requirePlace } from './new-region.ts';
import { blockMappings, joined, offsetsOfBlocks } from './plugged-blocks.ts';
import { type Blocks, type RamOptions, overlappingRam, requireConsistent } from './ram-options.ts';
import { DEFAULT_PRIORITY, type Mapping, type RegionState } from './region-state.ts';

/** RAM to add. @internal */
export interface NewRam {
  /** A copy of the caller's options. */
  readonly options: RamOptions;
  /** Of pluggable RAM, with guest-physical addresses of blocks. Default: all of it is one mapping */
  readonly pluggable?: { readonly blocks: Blocks; readonly plugged: readonly AddressRange[] };
}

/** RAM whose memory is open, but in no region yet. */
interface OpenRam {
  readonly at: AddressRange;
  readonly state: RegionState;
  readonly memory: MemorySlice;
  readonly mappings: readonly Mapping[];
}

/**
 * Adds and activates a region for each, in one change. If it throws, nothing remains.
 *
 * Opens all memory before it returns a promise: the caller may close its files then.
 *
 * @param onTurn called when the turn of the change comes
 * @returns the regions
 * @internal
 */
export async function addRam(
  space: GuestAddressSpace,
  ram: readonly NewRam[],
  onTurn?: () => void,
): Promise<RegionState[]> {
  const opened: OpenRam[] = [];
  try {
    for (const one of ram) opened.push(openRam(space, one));
    const edit = (draft: MemoryMapDraft): void => {
      for (const { at, state, mappings } of opened) {
        requireFree(draft, at);
        draft.add(state);
        draft.addMappings(state.id, mappings);
        draft.activate(state.id, at, true);
      }
    };
    const prefaulted = opened.filter((_, index) => ram[index]?.options.prefault === true);
    if (prefaulted.length > 0) await space.betweenChanges(() => space.check(edit)); // before it takes all the pages
    for (const { memory, mappings } of prefaulted) {
      await faultInMemory(memory, joined(mappings.map(({ range }) => range)));
    }
    await space.change(edit, onTurn);
  } catch (error) {
    for (const { memory } of opened) memory.owner.count(0);
    throw error;
  }
  return opened.map(({ state }) => state);
}

function openRam(space: GuestAddressSpace, { options, pluggable }: NewRam): OpenRam {
  const at = AddressRange.of(options.start, options.length);
  const { name = space.nextRamName() } = options;
  const state = newRegion(space, { name, length: at.length, kind: 'ram', priority: DEFAULT_PRIORITY.ram });
  requirePlace(space, at, name);
  requireConsistent(name, options);
  const plugged = pluggable && offsetsOfBlocks(pluggable.plugged, at, pluggable.blocks.size);
  if (pluggable !== undefined) requireWholePages(name, options, pluggable.blocks.size);
  const memory = openMemory(name, at, options);
  if (plugged !== undefined && pluggable !== undefined) {
    const mappings = blockMappings(plugged, at, pluggable.blocks.mappingSize, memory);
    return { at, state: { ...state, isRam: true, memory }, memory, mappings };
  }
  const all = { range: AddressRange.between(0n, at.length), memory, writable: true };
  return { at, state: { ...state, isRam: true }, memory, mappings: [all] };
}

/** The memory of RAM. Nothing but the regions that receive it holds it. */
function openMemory(name: string, at: AddressRange, options: RamOptions): MemorySlice {
  const { hugePages, numaNode } = options;
  const { backing, made } = backingOf(name, at, options);
  const transparentHugePages = hugePages === 'transparent';
  try {
    return openBacking(
      backing,
      at.length,
      numaNode === undefined ? { transparentHugePages } : { transparentHugePages, numaNode },
    );
  } finally {
    made?.close();
  }
}

/** @returns the backing, and its file if it was made for it */
function backingOf(name: string, at: AddressRange, options: RamOptions): { backing: Backing; made?: MemoryFile } {
  const { file, hugePages } = options;
  if (options.private === true) return { backing: 'private' };
  if (file !== undefined) return { backing: { file, offset: 0n } };
  const pages = hugePages === 'transparent' ? undefined : hugePages;
  if (pages !== undefined) requireAligned(at, 1n << BigInt(hugePageShift(pages)), `${name} at`);
  const made = MemoryFile.create(at.length, pages === undefined ? { name } : { name, hugePages: pages });
  return { backing: { file: made, offset: 0n }, made };
}

/** Blocks of less than a page could not be mapped. */
function requireWholePages(name: string, { file, hugePages }: RamOptions, blockSize: bigint): void {
  const isReserved = hugePages !== undefined && hugePages !== 'transparent';
  const ofFile = file === undefined ? hostPageSize() : native(() => fileMemoryOf(file).handle.pageSize());
  const pageSize = isReserved ? 1n << BigInt(hugePageShift(hugePages)) : ofFile;
  if (blockSize >= pageSize) return;
  const reason = `its memory has pages of ${hex(pageSize)} bytes, and its blocks have ${hex(blockSize)}`;
  throw new PeerDmaError('ERR_UNALIGNED', `${name}: adding pluggable RAM failed: ${reason}. Set a larger blockSize.`);
}

/** Rejects addresses that are RAM or a DMA buffer already. */
function requireFree(draft: MemoryMapDraft, at: AddressRange): void {
  for (const { isRam, isBuffer, at: other, name } of draft.regions()) {
    if ((isRam !== true && isBuffer !== true) || other?.overlaps(at) !== true) continue;
    throw overlappingRam(at, `"${name}" at ${other}`);
  }
}
