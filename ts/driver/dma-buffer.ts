/**
 * Memory that a driver in this process shares with its device: bytes here, an IOVA there.
 */
import { AddressRange } from '../address-range.ts';
import { readOptions, requireViewable } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError } from '../errors.ts';
import { type GuestMemory, addressSpaceOf } from '../guest/guest-memory.ts';
import { newRegion } from '../guest/region-manager.ts';
import { DEFAULT_PRIORITY } from '../guest/region-state.ts';
import { openStore } from '../memory/backing.ts';
import { viewFile } from '../memory/memory-file.ts';
import { hostPageSize } from '../memory/page-size.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { valueText } from '../value-text.ts';
import { findPlace } from './buffer-place.ts';

/** What {@link DmaBuffer.allocate} takes. */
export interface DmaBufferOptions {
  /** For messages and {@link GuestMemory.inspect}. Default: `dma buffer`. */
  readonly name?: string;
  /** Of its IOVA, in bytes: a power of two of at least a page. Default: a page. */
  readonly alignment?: bigint;
  /** The IOVA ends at this number of bits or below, for devices whose addresses are short. Default: what the IOMMU has. */
  readonly addressBits?: number;
}

/**
 * Memory for DMA, mapped for every device behind the targets that follow a guest memory. Zero to begin with.
 *
 * It is memory of that {@link GuestMemory} like any other: targets that join later get it too, and `inspect()` lists it. A driver of its
 * own has a guest memory of its own, without RAM.
 */
export class DmaBuffer {
  /** Where devices find it. */
  readonly iova: bigint;
  /**
   * The bytes, as they are now for both sides. They stay readable after {@link DmaBuffer.close}; the device does not reach them then.
   * What is written here a device may see in any order but for what the driver's own access to a register orders: on x86-64 that is all
   * that was written before.
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
   * Allocates memory at an IOVA that every target of the guest memory can map and nothing else has.
   *
   * @param memory what the device's IOMMU follows: what its {@link VfioContainerManager} was made with
   * @param length bytes, at most `buffer.constants.MAX_LENGTH` of Node; less than a whole number of pages takes the
   * rest of the last one
   * @throws {PeerDmaError} `ERR_IOVA_UNREACHABLE` where there is no such IOVA; what a target said to it, nothing is left then;
   * `ERR_OUT_OF_RANGE` for more bytes than an `ArrayBuffer` can have; `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE`,
   * `ERR_CLOSED`, `ERR_SYSTEM`
   */
  static async allocate(memory: GuestMemory, length: bigint, options: DmaBufferOptions = {}): Promise<DmaBuffer> {
    const space = addressSpaceOf(memory);
    const page = hostPageSize();
    const given = readOptions(options, ['name', 'alignment', 'addressBits']);
    const { name = 'dma buffer', alignment = page, addressBits = space.width } = given;
    if (typeof name !== 'string' || name === '') {
      throw invalid(`the name of a DMA buffer is a string with characters in it, not ${valueText(name)}`);
    }
    if (typeof alignment !== 'bigint' || alignment < page || (alignment & (alignment - 1n)) !== 0n) {
      throw invalid(`an alignment is a power of two of at least a page (${page}n), not ${valueText(alignment)}`);
    }
    if (!Number.isInteger(addressBits) || addressBits < 12 || addressBits > 64) {
      throw invalid(`addressBits is a whole number from 12 to 64, not ${valueText(addressBits)}`);
    }
    const { length: wanted } = AddressRange.of(0n, length);
    requireViewable(wanted, `DMA buffer "${name}"`);
    const whole = ((wanted + page - 1n) / page) * page;
    const { file, offset } = space.buffers.take(whole, name);
    try {
      const bytes = new Uint8Array(viewFile(file, offset, whole), 0, Number(wanted));
      const store = openStore({ file, offset }, whole);
      try {
        const priority = DEFAULT_PRIORITY.ram;
        const state = newRegion(space, { name, length: whole, kind: 'ram', priority, isBuffer: true });
        let iova = 0n;
        await space.change((draft) => {
          const bits = Math.min(space.width, addressBits);
          const room = findPlace(draft, whole, alignment, bits, space.iovaRanges());
          if (room === undefined) throw noRoom(name, whole, bits);
          iova = room.start;
          draft.add(state);
          draft.map(state.id, { range: AddressRange.of(0n, whole), store, writable: true });
          draft.place(state.id, room, true);
        });
        return new DmaBuffer(PACKAGE_KEY, memory, state.id, iova, bytes);
      } catch (error) {
        store.owner.count(0);
        throw error;
      }
    } finally {
      file.close(); // the region keeps it
    }
  }

  /** Bytes. */
  get length(): bigint {
    return BigInt(this.bytes.length);
  }

  /**
   * Unmaps it from every target, and gives the memory back once {@link DmaBuffer.bytes} is forgotten. Idempotent.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: the device may still reach it, and it is kept; `close` can be tried again
   */
  close(): Promise<void> {
    const space = addressSpaceOf(this.#memory);
    if (space.closed) return this.#memory.close();
    return this.#closing.once(() => space.change((draft) => draft.remove(this.#region)));
  }

  /** As {@link DmaBuffer.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function invalid(message: string): PeerDmaError {
  return new PeerDmaError('ERR_INVALID_ARGUMENT', message);
}

function noRoom(name: string, length: bigint, bits: number): PeerDmaError {
  return new PeerDmaError(
    'ERR_IOVA_UNREACHABLE',
    `there are no ${length} bytes of IOVA for "${name}" within ${bits} bits that every IOMMU can map and nothing else has: close what is not needed, or ask for less alignment`,
  );
}
