/** A device's registers by name, with an access width for each. */
import { readEntries, readOptions, requireUnsigned } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { requireBigint } from '../number-types.ts';
import type { DeviceRegion } from '../pci/physical-function.ts';

/** The object that is accessed: a BAR, or anything else with accesses of these widths. */
export type RegisterFile = Pick<DeviceRegion, 'read32' | 'write32' | 'read64' | 'write64'>;

/** One register. */
export interface RegisterDefinition<Value extends number | bigint = number | bigint> {
  /** Bytes from the start of its block. */
  readonly offset: bigint;
  /**
   * Reads the register.
   *
   * @param offset bytes from the start of the region
   */
  read(file: RegisterFile, offset: bigint): Value;
  /**
   * Writes the register.
   *
   * @param offset bytes from the start of the region
   */
  write(file: RegisterFile, offset: bigint, value: Value): void;
}

/** Registers by name, as properties: reading one reads the device, assigning to one writes it. */
export type RegisterView<Layout extends Readonly<Record<string, RegisterDefinition>>> = {
  -readonly [Name in keyof Layout]: Layout[Name] extends RegisterDefinition<infer Value> ? Value : never;
};

/** A register of 32 bits. @param offset bytes from the start of the region; a multiple of 4 */
export function u32(offset: bigint): RegisterDefinition<number> {
  return {
    offset: requireUnsigned(offset, 'offset'),
    read: (file, at) => file.read32(at),
    write: (file, at, value) => file.write32(at, value),
  };
}

/** A register of 64 bits. @param offset bytes from the start of the region; a multiple of 8 */
export function u64(offset: bigint): RegisterDefinition<bigint> {
  return {
    offset: requireUnsigned(offset, 'offset'),
    read: (file, at) => file.read64(at),
    write: (file, at, value) => file.write64(at, value),
  };
}

/**
 * Returns the registers of a region as properties. Each access of a property is one access of the device.
 *
 * Accesses are never cached, merged or omitted. The region's errors pass through: `ERR_OUT_OF_RANGE` past its end,
 * `ERR_UNALIGNED`, and `ERR_BAR_DISABLED` if the device does not decode.
 *
 * @param base bytes added to every offset: for the n-th of several equal blocks
 */
export function registers<
  const Layout extends Readonly<Record<string, RegisterDefinition<number> | RegisterDefinition<bigint>>>,
>(file: RegisterFile, layout: Layout, base = 0n): RegisterView<Layout> {
  requireRegisterFile(file);
  requireBigint(base, 'base');
  const view = {};
  for (const [name, register] of readEntries<RegisterDefinition>(layout, 'registers')) {
    const { offset, read, write } = readOptions(register, ['offset', 'read', 'write'], `the register ${name}`);
    const isRegister = typeof offset === 'bigint' && typeof read === 'function' && typeof write === 'function';
    if (!isRegister) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `the register ${name} is invalid. Define it with u32 or u64.`);
    }
    const at = base + offset;
    Object.defineProperty(view, name, {
      enumerable: true,
      get: () => read.call(register, file, at),
      set: (value: number | bigint) => {
        write.call(register, file, at, value);
      },
    });
  }
  return Object.preventExtensions(view) as RegisterView<Layout>;
}

function requireRegisterFile(file: RegisterFile): void {
  const names = ['read32', 'write32', 'read64', 'write64'] as const;
  const accesses = readOptions(file, names, 'the accesses of a region');
  if (names.every((name) => typeof accesses[name] === 'function')) return;
  throw new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    'a region with read32, write32, read64 and write64 is expected. Pass a region of a device.',
  );
}
