/** DMA buffers: memory shared by a driver in this process and its device, as bytes and as an IOVA. */
import { AddressRange } from '../address-range.ts';
import { type AbortSignalLike, requireSignal, runAbortable } from '../abort.ts';
import { readOptions, requireViewable } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError } from '../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { newRegion } from '../guest/new-region.ts';
import { DEFAULT_PRIORITY } from '../guest/region-state.ts';
import { openBacking } from '../memory/backing.ts';
import { newMemoryFile } from '../memory/memory-file.ts';
import { hostPageSize } from '../memory/page-size.ts';
import { requireBigint, requireNumber } from '../number-types.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { sizeOf } from '../size.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { valueText } from '../value-text.ts';
import { findPlacement } from './buffer-placement.ts';

/** Options of {@link DmaBuffer.allocate}. */
export interface DmaBufferOptions {
  /** For messages and {@link GuestMemory.inspect}. Default: `dma buffer`. */
  readonly name?: string;
  /** Alignment of its IOVA in bytes: a power of two of at least a page. Default: a page. */
  readonly alignment?: bigint;
  /** Maximum width of the IOVA in bits, 12 to 64, for devices with short addresses. Default: the width of the IOMMU. */
  readonly addressWidth?: number;
  /** As in `AbortOptions`. A buffer that is mapped by the time of the abort is unmapped again. */
  readonly signal?: AbortSignalLike | undefined;
}

/**
 * Memory for DMA, mapped for every device behind the targets of a guest memory. Initially zero.
 *
 * It is a region of that {@link GuestMemory} like any other: targets that join later map it too, and `inspect()` lists
 * it. A driver without a guest has a guest memory of its own, without RAM.
 */
export class DmaBuffer {
  /** Its address for devices. */
  readonly iova: bigint;
  /**
   * The current bytes, shared with the device. They remain readable after {@link DmaBuffer.close}; the device loses
   * access.
   *
   * A device may observe writes in any order, except that the driver's own register access orders all earlier writes
   * on x86-64.
   */
  // `Uint8Array<ArrayBuffer>` since TypeScript 5.7, `Uint8Array` before.
  readonly bytes: ReturnType<Uint8Array['slice']>;
  readonly #memory: GuestMemory;
  readonly #region: number;
  readonly #closing = new Closing();

  private constructor(
    key: typeof PACKAGE_KEY,
    memory: GuestMemory,
    region: number,
    iova: bigint,
    bytes: Uint8Array<ArrayBuffer>,
  ) {
    requirePackageKey(key, 'DmaBuffer.allocate()');
    this.#memory = memory;
    this.#region = region;
    this.iova = iova;
    this.bytes = bytes;
  }

  /**
   * Allocates memory at a free IOVA that every target of the guest memory can map.
   *
   * @param memory the guest memory that the device's IOMMU maps: that of its `VfioContainerManager`
   * @param length bytes, from 1 to `buffer.constants.MAX_LENGTH` of Node; rounded up to whole pages for the mapping
   * @throws {PeerDmaError} `ERR_IOVA_UNREACHABLE` if there is no such IOVA; the error of a target, after which nothing
   * is left allocated; `ERR_OUT_OF_RANGE` for more bytes than an `ArrayBuffer` supports; `ERR_INVALID_ARGUMENT`,
   * `ERR_EMPTY_RANGE`, `ERR_CLOSED`, `ERR_SYSTEM`
   * @throws the reason of the signal
   */
  static async allocate(memory: GuestMemory, length: bigint, options: DmaBufferOptions = {}): Promise<DmaBuffer> {
    const signal = requireSignal(readOptions(options, ['signal']).signal);
    return runAbortable(
      signal,
      (onTurn) => DmaBuffer.#allocate(memory, length, options, onTurn),
      (buffer) => buffer.close(),
    );
  }

  /** @param onTurn called when its turn to change guest memory comes */
  static async #allocate(
    memory: GuestMemory,
    length: bigint,
    options: DmaBufferOptions,
    onTurn: () => void,
  ): Promise<DmaBuffer> {
    const space = guestAddressSpaceOf(memory);
    const page = hostPageSize();
    const given = readOptions(options, ['name', 'alignment', 'addressWidth']);
    const { name = 'dma buffer', alignment = page, addressWidth = space.width } = given;
    if (typeof name !== 'string' || name === '') {
      throw invalid(`the name of a DMA buffer is a non-empty string, not ${valueText(name)}`);
    }
    requireBigint(alignment, 'alignment');
    requireNumber(addressWidth, 'addressWidth');
    if (alignment < page || (alignment & (alignment - 1n)) !== 0n) {
      throw invalid(`an alignment is a power of two of at least a page (${page}n), not ${valueText(alignment)}`);
    }
    if (!Number.isInteger(addressWidth) || addressWidth < 12 || addressWidth > 64) {
      throw invalid(`addressWidth is a whole number from 12 to 64, not ${valueText(addressWidth)}`);
    }
    const { length: wanted } = AddressRange.of(0n, length);
    requireViewable(wanted, `DMA buffer "${name}"`);
    const whole = ((wanted + page - 1n) / page) * page;
    const { file, offset } = space.buffers.take(whole, name);
    try {
      const bytes = new Uint8Array(file.view(offset, whole), 0, Number(wanted));
      const slice = openBacking({ file: newMemoryFile(file), offset }, whole);
      try {
        const priority = DEFAULT_PRIORITY.ram;
        const state = newRegion(space, { name, length: whole, kind: 'ram', priority, isBuffer: true });
        let iova = 0n;
        await space.change((draft) => {
          const bits = Math.min(space.width, addressWidth);
          const room = findPlacement(draft, whole, alignment, bits, space.iovaRanges());
          if (room === undefined) throw noRoom(name, whole, bits);
          iova = room.start;
          draft.add(state);
          draft.addMapping(state.id, { range: AddressRange.of(0n, whole), memory: slice, writable: true });
          draft.activate(state.id, room, true);
        }, onTurn);
        return new DmaBuffer(PACKAGE_KEY, memory, state.id, iova, bytes);
      } catch (error) {
        slice.owner.count(0);
        throw error;
      }
    } finally {
      file.close(); // the region holds its own reference
    }
  }

  /** Bytes. */
  get length(): bigint {
    return BigInt(this.bytes.length);
  }

  /**
   * Unmaps it from every target. Its memory is released once {@link DmaBuffer.bytes} is garbage-collected. Idempotent.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: the device may still reach it, and it is kept. Call `close` again to
   * retry
   */
  close(): Promise<void> {
    const space = guestAddressSpaceOf(this.#memory);
    if (space.closed) return this.#memory.close();
    return this.#closing.once(() => space.change((draft) => draft.remove(this.#region)));
  }

  /** As {@link DmaBuffer.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'DmaBuffer', () => {
      const range = AddressRange.of(this.iova, this.length);
      const isMapped = guestAddressSpaceOf(this.#memory).map.region(this.#region) !== undefined;
      return [`${range} (${sizeOf(this.length)})`, isMapped ? 'open' : 'closed'];
    });
  }
}

function invalid(message: string): PeerDmaError {
  return new PeerDmaError('ERR_INVALID_ARGUMENT', message);
}

function noRoom(name: string, length: bigint, bits: number): PeerDmaError {
  return new PeerDmaError(
    'ERR_IOVA_UNREACHABLE',
    `DMA buffer "${name}": allocation failed: ` +
      `no ${length} bytes of IOVA within ${bits} bits are free and mappable by every IOMMU. ` +
      'Close unused buffers, or reduce the alignment.',
  );
}
