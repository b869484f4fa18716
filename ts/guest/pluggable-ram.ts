/**
 * RAM whose blocks are plugged and unplugged.
 */
import { AddressRange, requireRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { type MemorySlice, type UndiscardedPart, faultInMemory, hasReservedPages } from '../memory/backing.ts';
import { INSPECT, objectText } from '../object-text.ts';
import type { PACKAGE_KEY } from '../package-key.ts';
import { sizeOf } from '../size.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import type { MemoryMapDraft } from './memory-map.ts';
import { blockMappings, offsetsOfBlocks, pluggedIn, requirePlugged, requireUnplugged } from './plugged-blocks.ts';
import type { Blocks, RamOptions } from './ram-options.ts';
import { Ram } from './ram.ts';
import { type RegionState, stateText } from './region-state.ts';
import { UnpluggedBytes } from './unplugged-bytes.ts';

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
  readonly #unplugged: UnpluggedBytes;

  /** @internal */
  constructor(
    key: typeof PACKAGE_KEY,
    space: GuestAddressSpace,
    state: RegionState,
    range: AddressRange,
    { blocks, prefault, file }: { readonly blocks: Blocks } & Pick<RamOptions, 'prefault' | 'file'>,
  ) {
    super(key, space, state, range);
    this.#space = space;
    this.#id = state.id;
    this.blockSize = blocks.size;
    this.mappingSize = blocks.mappingSize;
    this.#prefault = prefault === true;
    this.#unplugged = new UnpluggedBytes(space, state, file !== undefined);
  }

  /**
   * Plugs blocks: all targets map them, as one change. They read as zeros.
   *
   * Blocks of a file that the caller passed keep its bytes until they are unplugged, also if plugging fails. The
   * mappings of blocks that are plugged already do not change. A process that still maps the file can write to the
   * blocks at any time.
   *
   * @param ranges guest-physical addresses; whole blocks
   * @throws {PeerDmaError} `ERR_ALREADY_PLUGGED`; `ERR_UNALIGNED`, `ERR_OVERLAP`, `ERR_INVALID_ARGUMENT`;
   * `ERR_OUT_OF_RANGE` outside of the RAM; `ERR_REGION_REMOVED`, `ERR_CLOSED`; the error of a target
   * @throws {PeerDmaError} `ERR_MEMORY_IN_USE` if another region maps bytes that would be discarded;
   * `ERR_RANGE_QUARANTINED`; `ERR_DISCARD_FAILED` for a block that still has its bytes from before
   * @throws {PeerDmaError} `ERR_HUGE_PAGES_UNAVAILABLE`, `ERR_MEMORY_FAULT` without free memory of the host. Nothing
   * has changed, whatever the error
   */
  async plug(ranges: readonly AddressRange[]): Promise<void> {
    const offsets = offsetsOfBlocks(ranges, this.range, this.blockSize);
    await this.#space.sequence(async (change) => {
      const { mappings, memory } = this.#region();
      requireUnplugged(mappings, offsets, this.range);
      const added = blockMappings(offsets, this.range, this.mappingSize, memory);
      const edit = (draft: MemoryMapDraft): void => draft.addMappings(this.#id, added);
      this.#space.check(edit);
      const zeroed = this.#unplugged.zeroed(offsets);
      this.#unplugged.requireUnshared(memory, zeroed);
      // Also those that were discarded: a process that has them mapped may have written since.
      await this.#discard(memory, zeroed);
      try {
        if (this.#prefault || hasReservedPages(memory)) await faultInMemory(memory, offsets);
        await change(edit);
      } catch (error) {
        await this.#unplugged.discard(memory, zeroed); // a target may have mapped them for a moment
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
   * `ERR_OUT_OF_RANGE` outside of the RAM; `ERR_MEMORY_IN_USE` if another region maps these bytes; `ERR_UNMAP_FAILED`,
   * `ERR_RANGE_QUARANTINED`; `ERR_REGION_REMOVED`, `ERR_CLOSED`; the error of a target. Nothing has changed then
   * @throws {PeerDmaError} `ERR_DISCARD_FAILED`: the blocks are unplugged, but their memory is still allocated. The
   * next call of `plug` or `unplug` tries again, and they cannot be plugged before
   */
  async unplug(ranges: readonly AddressRange[]): Promise<void> {
    const offsets = offsetsOfBlocks(ranges, this.range, this.blockSize);
    await this.#space.sequence(async (change) => {
      const { mappings, memory } = this.#region();
      requirePlugged(mappings, offsets, this.range);
      this.#unplugged.requireUnshared(memory, offsets);
      await change((draft) => {
        for (const range of offsets) draft.removeMappings(this.#id, range);
      });
      this.#unplugged.release(offsets);
      await this.#discard(memory, offsets);
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
    return this.#space.map.region(this.#id)?.mappedLength ?? 0n;
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

  /** @throws {PeerDmaError} `ERR_DISCARD_FAILED` with the first of these blocks that has its bytes from before */
  async #discard(memory: MemorySlice, offsets: readonly AddressRange[]): Promise<void> {
    const failures = await this.#unplugged.discard(memory, offsets);
    const failed = failures.find(({ part }) => offsets.some((one) => one.overlaps(part)));
    if (failed !== undefined) throw this.#discardFailed(failed);
  }

  #discardFailed({ part, error: cause }: UndiscardedPart): PeerDmaError {
    const range = this.#addressesOf(part);
    return new PeerDmaError(
      'ERR_DISCARD_FAILED',
      `"${this.name}": discarding ${range} failed: ${cause.message}. Plug or unplug blocks to try it again.`,
      cause instanceof PeerDmaError ? { range, errno: cause.errno, syscall: cause.syscall, cause } : { range, cause },
    );
  }

  #addressesOf({ start, end }: AddressRange): AddressRange {
    return AddressRange.between(start + this.range.start, end + this.range.start);
  }
}
