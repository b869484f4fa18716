/**
 * RAM whose blocks are plugged and unplugged.
 */
import { AddressRange, requireRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { type MemorySlice, type UndiscardedPart, discardMemory, faultInMemory } from '../memory/backing.ts';
import { INSPECT, objectText } from '../object-text.ts';
import type { PACKAGE_KEY } from '../package-key.ts';
import { sizeOf } from '../size.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { blockMappings, offsetsOfBlocks, pluggedIn, requirePlugged, requireUnplugged } from './plugged-blocks.ts';
import type { Blocks } from './ram-options.ts';
import { Ram } from './ram.ts';
import { type RegionState, stateText } from './region-state.ts';

/**
 * RAM in blocks, by {@link GuestMemory.addPluggableRam}.
 *
 * Neither the guest nor a device reaches a block that is not plugged. Nothing else is mapped at its addresses.
 */
export class PluggableRam extends Ram {
  /** Bytes of a block. */
  readonly blockSize: bigint;
  /** The most bytes of an IOMMU mapping or memory slot. */
  readonly mappingSize: bigint;
  readonly #space: GuestAddressSpace;
  readonly #id: number;
  /** Whether blocks are faulted in when they are plugged. */
  readonly #prefault: boolean;
  /** Unplugged blocks, by their offsets, whose bytes could not be discarded. */
  #undiscarded: readonly UndiscardedPart[] = [];

  /** @internal */
  constructor(
    key: typeof PACKAGE_KEY,
    space: GuestAddressSpace,
    state: RegionState,
    range: AddressRange,
    { blocks, prefault }: { readonly blocks: Blocks; readonly prefault: boolean },
  ) {
    super(key, space, state, range);
    this.#space = space;
    this.#id = state.id;
    this.blockSize = blocks.size;
    this.mappingSize = blocks.mappingSize;
    this.#prefault = prefault;
  }

  /**
   * Plugs blocks: all targets map them, as one change. They read as zeros.
   *
   * Blocks of a file that the caller passed keep the bytes of the file until they are unplugged. The mappings of blocks
   * that are plugged already do not change.
   *
   * @param ranges guest-physical addresses; whole blocks
   * @throws {PeerDmaError} `ERR_ALREADY_PLUGGED`; `ERR_UNALIGNED`, `ERR_OVERLAP`, `ERR_INVALID_ARGUMENT`;
   * `ERR_OUT_OF_RANGE` outside of the RAM; `ERR_DISCARD_FAILED` for a block that still has its bytes from before;
   * `ERR_HUGE_PAGES_UNAVAILABLE`, `ERR_MEMORY_FAULT` without free memory of the host; `ERR_REGION_REMOVED`,
   * `ERR_CLOSED`; the error of a target. Nothing has changed then
   */
  async plug(ranges: readonly AddressRange[]): Promise<void> {
    const offsets = offsetsOfBlocks(ranges, this.range, this.blockSize);
    await this.#space.sequence(async (change) => {
      const { mappings, memory } = this.#region();
      requireUnplugged(mappings, offsets, this.range);
      await this.#discard(memory, this.#retried());
      this.#requireDiscarded(offsets);
      try {
        if (this.#prefault) await faultInMemory(memory, offsets);
        const added = blockMappings(offsets, this.range, this.mappingSize, memory);
        await change((draft) => draft.addMappings(this.#id, added));
      } catch (error) {
        await this.#discard(memory, offsets); // a target may have mapped them for a moment
        throw error;
      }
    });
  }

  /**
   * Unplugs blocks: unmaps them from all targets, as one change, and discards their bytes.
   *
   * If a mapping has more blocks than these (see `mappingSize`), it is unmapped, and the others are mapped again: DMA
   * to them faults for a moment. Otherwise other blocks are not affected.
   *
   * @param ranges guest-physical addresses; whole blocks
   * @throws {PeerDmaError} `ERR_NOT_PLUGGED`; `ERR_UNALIGNED`, `ERR_OVERLAP`, `ERR_INVALID_ARGUMENT`;
   * `ERR_OUT_OF_RANGE` outside of the RAM; `ERR_UNMAP_FAILED`, `ERR_RANGE_QUARANTINED`; `ERR_REGION_REMOVED`,
   * `ERR_CLOSED`; the error of a target. Nothing has changed then
   * @throws {PeerDmaError} `ERR_DISCARD_FAILED`: the blocks are unplugged, but their memory is still allocated. The
   * next call of `plug` or `unplug` tries again, and they cannot be plugged before
   */
  async unplug(ranges: readonly AddressRange[]): Promise<void> {
    const offsets = offsetsOfBlocks(ranges, this.range, this.blockSize);
    await this.#space.sequence(async (change) => {
      const { mappings, memory } = this.#region();
      requirePlugged(mappings, offsets, this.range);
      await change((draft) => {
        for (const range of offsets) draft.removeMappings(this.#id, range);
      });
      await this.#discard(memory, [...this.#retried(), ...offsets]);
      this.#requireDiscarded(offsets);
    });
  }

  /**
   * Returns the plugged parts, in order of address. Neighbours are joined.
   *
   * After {@link Ram.remove} there are none.
   *
   * @param within guest-physical addresses to which the parts are clipped. Default: all of the RAM
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  plugged(within: AddressRange = this.range): AddressRange[] {
    requireRange(within);
    const region = this.#space.map.region(this.#id);
    if (region === undefined || !within.overlaps(this.range)) return [];
    const { start } = this.range;
    const [from, to] = [within.start < start ? 0n : within.start - start, within.end - start];
    const offsets = pluggedIn(region.mappings, AddressRange.between(from, to));
    return offsets.map((one) => this.#addressesOf(one));
  }

  /** Bytes of the plugged blocks. */
  get pluggedLength(): bigint {
    return this.plugged().reduce((sum, { length }) => sum + length, 0n);
  }

  /** For `console.log`. @internal */
  override [INSPECT](depth: number): string {
    return objectText(depth, 'PluggableRam', () => [
      `"${this.name}" ${this.range} (${sizeOf(this.range.length)})`,
      `plugged: ${sizeOf(this.pluggedLength)}`,
      `blockSize: ${sizeOf(this.blockSize)}`,
      stateText(this.#space.map.region(this.#id)),
    ]);
  }

  /** The state of its region, with the memory of all blocks. */
  #region(): RegionState & { readonly memory: MemorySlice } {
    const region = this.#space.map.region(this.#id);
    if (region?.memory !== undefined) return { ...region, memory: region.memory };
    throw new PeerDmaError('ERR_REGION_REMOVED', `"${this.name}" has been removed: add RAM again`);
  }

  /** Discards the bytes of unplugged blocks, and records those for which that fails. */
  async #discard(memory: MemorySlice, offsets: readonly AddressRange[]): Promise<void> {
    if (offsets.length === 0) return;
    this.#space.sweepHostView(); // mapped memory cannot be discarded
    const failed = await discardMemory(memory, offsets);
    const others = this.#undiscarded.filter(({ part }) => !offsets.includes(part));
    this.#undiscarded = [...others, ...failed];
  }

  /** @throws {PeerDmaError} `ERR_DISCARD_FAILED` with the first of these blocks that has its bytes from before */
  #requireDiscarded(offsets: readonly AddressRange[]): void {
    const failed = this.#undiscarded.find(({ part }) => offsets.some((one) => one.overlaps(part)));
    if (failed === undefined) return;
    const range = this.#addressesOf(failed.part);
    const { error: cause } = failed;
    throw new PeerDmaError(
      'ERR_DISCARD_FAILED',
      `"${this.name}": discarding ${range} failed: ${cause.message}. Plug or unplug blocks to try it again.`,
      cause instanceof PeerDmaError ? { range, errno: cause.errno, syscall: cause.syscall, cause } : { range, cause },
    );
  }

  #retried(): AddressRange[] {
    return this.#undiscarded.map(({ part }) => part);
  }

  #addressesOf({ start, end }: AddressRange): AddressRange {
    return AddressRange.between(start + this.range.start, end + this.range.start);
  }
}
