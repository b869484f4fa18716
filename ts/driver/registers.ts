/**
 * A device's registers by name, each access of the width that the device wants.
 */
import type { DeviceRegion } from '../pci/physical-function.ts';

/** What is read and written: a BAR, or whatever else has accesses of these widths. */
export type RegisterFile = Pick<DeviceRegion, 'read32' | 'write32' | 'read64' | 'write64'>;

/** One register. */
export interface Register<Value extends number | bigint = number | bigint> {
  /** Bytes from the start of the block that it is in. */
  readonly offset: bigint;
  /**
   * Reads the device.
   *
   * @param offset bytes from the start of the region
   */
  read(file: RegisterFile, offset: bigint): Value;
  /**
   * Writes to the device.
   *
   * @param offset bytes from the start of the region
   */
  write(file: RegisterFile, offset: bigint, value: Value): void;
}

/** Registers by name, as properties: reading one reads the device, assigning to one writes it. */
export type RegisterView<Layout extends Readonly<Record<string, Register>>> = {
  -readonly [Name in keyof Layout]: Layout[Name] extends Register<infer Value> ? Value : never;
};

/** A register of 32 bits. @param offset bytes from the start of the region; a multiple of 4 */
export function u32(offset: bigint | number): Register<number> {
  return {
    offset: BigInt(offset),
    read: (file, at) => file.read32(at),
    write: (file, at, value) => file.write32(at, value),
  };
}

/** A register of 64 bits. @param offset bytes from the start of the region; a multiple of 8 */
export function u64(offset: bigint | number): Register<bigint> {
  return {
    offset: BigInt(offset),
    read: (file, at) => file.read64(at),
    write: (file, at, value) => file.write64(at, value),
  };
}

/**
 * The registers of a region as an object. Each access is one access of the device, never kept, joined or left out; what is beyond the
 * region's end or not aligned is an error of the region (`ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`), as is a device that does not answer
 * (`ERR_BAR_DISABLED`).
 *
 * @param base added to every offset: for the n-th of several equal blocks
 */
export function registers<const Layout extends Readonly<Record<string, Register<number> | Register<bigint>>>>(
  file: RegisterFile,
  layout: Layout,
  base = 0n,
): RegisterView<Layout> {
  const view = {};
  for (const [name, register] of Object.entries(layout) as [string, Register][]) {
    const at = base + register.offset;
    Object.defineProperty(view, name, {
      enumerable: true,
      get: () => register.read(file, at),
      set: (value: number | bigint) => {
        register.write(file, at, value);
      },
    });
  }
  return Object.preventExtensions(view) as RegisterView<Layout>;
}
