/**
 * A region of an open VFIO device.
 */
import type { NativeVfioDevice } from '#native';
import { AddressRange, hex } from '../address-range.ts';
import { newBytes, requireAccess, requireBytes } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { INSPECT } from '../object-text.ts';
import { requireBigint, requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';
import { native, nativeAsync } from '../native-call.ts';
import type { Backing } from '../memory/backing.ts';
import type { MemoryFile } from '../memory/memory-file.ts';
import { regionText } from '../pci/region-text.ts';
import type { DeviceRegion } from '../pci/physical-function.ts';

/**
 * Config space, a BAR or the ROM. Offsets are bytes from its start; accesses past its end throw `ERR_OUT_OF_RANGE`.
 */
export class VfioRegion implements DeviceRegion {
  readonly index: number;
  readonly length: bigint;
  readonly mmapAreas: readonly AddressRange[];
  readonly hostAddress: bigint | undefined;
  /** Whether the kernel allows mapping the pages of the MSI-X table. */
  readonly msixMappable: boolean;
  readonly #bdf: string;
  readonly #device: NativeVfioDevice;
  readonly #file: MemoryFile;
  /** Offset of the region in the device's file. @internal */
  readonly fileOffset: bigint;
  readonly #onWrite: () => void;

  private constructor(
    bdf: string,
    index: number,
    device: NativeVfioDevice,
    file: MemoryFile,
    hostAddress: bigint | undefined,
    info: { length: bigint; fileOffset: bigint; mmapAreas: readonly AddressRange[]; msixMappable: boolean },
    onWrite: () => void,
  ) {
    this.#bdf = bdf;
    this.index = index;
    this.#device = device;
    this.#file = file;
    this.length = info.length;
    this.fileOffset = info.fileOffset;
    this.hostAddress = hostAddress;
    this.mmapAreas = info.mmapAreas;
    this.msixMappable = info.msixMappable;
    this.#onWrite = onWrite;
  }

  /**
   * Opens a region; `undefined` if the device does not have it.
   *
   * @param onWrite called after each write by this object
   * @internal
   */
  static open(
    bdf: string,
    index: number,
    device: NativeVfioDevice,
    file: MemoryFile,
    hostAddress: bigint | undefined,
    onWrite: () => void = () => {},
  ): VfioRegion | undefined {
    const info = native(() => device.regionInfo(index), { bdf });
    if (info === null) return undefined;
    const mmapAreas: AddressRange[] = [];
    for (let at = 0; at + 1 < info.mmapAreas.length; at += 2) {
      mmapAreas.push(AddressRange.of(info.mmapAreas[at] ?? 0n, info.mmapAreas[at + 1] ?? 0n));
    }
    return new VfioRegion(bdf, index, device, file, hostAddress, { ...info, mmapAreas }, onWrite);
  }

  /**
   * Returns the region from an offset on as a backing for {@link MemoryRegion.addMapping}.
   *
   * A mapping of it must lie within one of {@link VfioRegion.mmapAreas}.
   *
   * @param offset bytes from the start of the region. Default: 0
   * @throws {PeerDmaError} `ERR_NO_SUCH_REGION` if no part of the region can be mapped, `ERR_OUT_OF_RANGE`
   */
  backing(offset = 0n): Backing {
    const bdf = this.#bdf;
    requireBigint(offset, 'offset', bdf);
    if (this.mmapAreas.length === 0) {
      throw new PeerDmaError(
        'ERR_NO_SUCH_REGION',
        `region ${this.index} of ${bdf} cannot be mapped, only read and written`,
        {
          bdf,
        },
      );
    }
    if (offset < 0n || offset >= this.length) {
      throw new PeerDmaError(
        'ERR_OUT_OF_RANGE',
        `region ${this.index} of ${bdf} has ${hex(this.length)} bytes, and ${valueText(offset)} is not within`,
        { bdf },
      );
    }
    return { file: this.#file, offset: this.fileOffset + offset };
  }

  /**
   * Copies bytes out, in accesses that the kernel chooses.
   *
   * @param offset bytes from the start of the region
   * @param length bytes
   */
  read(offset: bigint, length: number): Uint8Array {
    requireAccess(offset, length, this.length, `region ${this.index} of ${this.#bdf}`);
    const bytes = newBytes(length, `region ${this.index} of ${this.#bdf}`);
    this.#call(() => this.#device.readRegion(this.index, offset, bytes));
    return bytes;
  }

  /**
   * Copies bytes in, in accesses that the kernel chooses.
   *
   * @param offset bytes from the start of the region
   */
  write(offset: bigint, bytes: Uint8Array): void {
    requireBigint(offset, 'offset', this.#bdf);
    this.#write(() => this.#device.writeRegion(this.index, offset, requireBytes(bytes)));
  }

  /**
   * As {@link VfioRegion.write}, on a worker thread. A write to config space takes 100 ms or more if it resets the
   * function, and about 10 ms if it moves the function out of D3hot. Other accesses to the device's regions wait for
   * it.
   *
   * @param offset bytes from the start of the region
   * @param bytes copied before this returns
   */
  async writeAsync(offset: bigint, bytes: Uint8Array): Promise<void> {
    requireBigint(offset, 'offset', this.#bdf);
    const from = requireBytes(bytes);
    try {
      await nativeAsync(() => this.#device.writeRegionAsync(this.index, offset, from), { bdf: this.#bdf });
    } finally {
      this.#onWrite(); // part of it may have been written
    }
  }

  /**
   * Reads 32 bits in one access, through the mapping if the region has one.
   *
   * @param offset bytes from the start of the region; a multiple of 4
   * @throws {PeerDmaError} `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_BAR_DISABLED` while the device does not decode
   * memory or is in D3hot (an access would be a bus error)
   */
  read32(offset: bigint): number {
    requireBigint(offset, 'offset', this.#bdf);
    return this.#call(() => this.#device.read32(this.index, offset));
  }

  /**
   * Writes 32 bits in one access; see {@link VfioRegion.read32}.
   *
   * @param offset bytes from the start of the region; a multiple of 4
   * @param value 32 bits, unsigned
   */
  write32(offset: bigint, value: number): void {
    requireBigint(offset, 'offset', this.#bdf);
    requireNumber(value, 'value', this.#bdf);
    this.#write(() => this.#device.write32(this.index, offset, value));
  }

  /**
   * Reads 64 bits in one access; see {@link VfioRegion.read32}.
   *
   * @param offset bytes from the start of the region; a multiple of 8
   */
  read64(offset: bigint): bigint {
    requireBigint(offset, 'offset', this.#bdf);
    return this.#call(() => this.#device.read64(this.index, offset));
  }

  /**
   * Writes 64 bits in one access; see {@link VfioRegion.read32}.
   *
   * @param offset bytes from the start of the region; a multiple of 8
   * @param value 64 bits, unsigned
   */
  write64(offset: bigint, value: bigint): void {
    requireBigint(offset, 'offset', this.#bdf);
    requireBigint(value, 'value', this.#bdf);
    this.#write(() => this.#device.write64(this.index, offset, value));
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return regionText(depth, 'VfioRegion', () => this.#bdf, this);
  }

  #write(call: () => void): void {
    try {
      this.#call(call);
    } finally {
      this.#onWrite(); // part of it may have been written
    }
  }

  #call<T>(call: () => T): T {
    return native(call, { bdf: this.#bdf });
  }
}
