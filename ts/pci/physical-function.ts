/**
 * What this package asks of a device: the function of a physical device that VFIO opened, or a simulated one.
 */
import type { AddressRange } from '../address-range.ts';
import type { Backing } from '../memory/backing.ts';

/** A region of a device: config space, a BAR, the ROM. Offsets are in bytes from its start. */
export interface DeviceRegion {
  readonly index: number;
  /** Bytes. */
  readonly length: bigint;
  /** The parts that can be mapped into guest memory, as offsets. */
  readonly mmapAreas: readonly AddressRange[];
  /** The region as memory, for {@link DeviceMemory.map}. */
  backing(offset?: bigint): Backing;
  read(offset: bigint, length: number): Uint8Array;
  write(offset: bigint, bytes: Uint8Array): void;
  /** One access of 32 bits at a multiple of 4. */
  read32(offset: bigint): number;
  write32(offset: bigint, value: number): void;
  /** One access of 64 bits at a multiple of 8. */
  read64(offset: bigint): bigint;
  write64(offset: bigint, value: bigint): void;
}

/** A PCI function. */
export interface PhysicalFunction {
  /** PCI address, such as `0000:01:00.0`. */
  readonly bdf: string;
  readonly config: DeviceRegion;
  /** BARs 0 to 5, then the ROM; `undefined` where the device has none. */
  readonly regions: readonly (DeviceRegion | undefined)[];
  reset(): Promise<void>;
  close(): Promise<void>;
}
