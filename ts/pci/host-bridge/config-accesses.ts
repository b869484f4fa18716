/** Guest accesses to the config space of the functions of a host bridge. */
import { alignedAccesses } from '../aligned-accesses.ts';
import { HEADER_TYPE, HEADER_TYPE_MFD } from '../config/registers.ts';
import { allOnes } from '../pci-fault.ts';
import { type Pending, inTurn } from '../pending.ts';
import type { AttachedFunction } from './attached-function.ts';
import { type FunctionAddress, isFunction0 } from './function-address.ts';
import type { FunctionTable } from './function-table.ts';

/** Bytes of the widest access to config space. */
const WIDEST = 4;

/** @internal */
export class ConfigAccesses {
  readonly #functions: FunctionTable;

  constructor(functions: FunctionTable) {
    this.#functions = functions;
  }

  /**
   * Reads config space. Without a function at the address, all bits read as one.
   *
   * @param offset 0 to 4095
   * @param length bytes, up to the end of config space
   */
  read(address: FunctionAddress, offset: number, length: number): Pending<Uint8Array> {
    const func = this.#functions.get(address);
    return func === undefined ? allOnes(length) : func.accesses.run(() => this.#read(func, offset, length));
  }

  /**
   * Writes config space, in aligned accesses of up to 4 bytes. Without a function at the address, it does nothing.
   *
   * @param offset 0 to 4095
   * @param bytes up to the end of config space; not changed by the caller until the write has taken effect
   */
  write(address: FunctionAddress, offset: number, bytes: Uint8Array): Pending<void> {
    const func = this.#functions.get(address);
    return func?.accesses.run(() => writeFunction(func, offset, bytes));
  }

  #read(func: AttachedFunction, offset: number, length: number): Uint8Array {
    const bytes = allOnes(length);
    if (!func.attached) return bytes;
    for (const [at, width] of alignedAccesses(BigInt(offset), length, WIDEST)) {
      const value = func.configRead(offset + at, width);
      for (let index = 0; index < width; index++) bytes[at + index] = value >>> (8 * index);
    }
    const header = HEADER_TYPE - offset;
    const { address } = func;
    if (header >= 0 && header < length && isFunction0(address) && this.#functions.isMultiFunction(address)) {
      bytes[header] = (bytes[header] ?? 0) | HEADER_TYPE_MFD;
    }
    return bytes;
  }
}

/** Writes the bytes in ascending order. An access that has waited may find that the function was removed. */
function writeFunction(func: AttachedFunction, offset: number, bytes: Uint8Array): Pending<void> {
  return inTurn(alignedAccesses(BigInt(offset), bytes.length, WIDEST), ([at, width]) => {
    if (!func.attached) return undefined;
    const value = bytes.subarray(at, at + width).reduceRight((sum, byte) => sum * 256 + byte, 0);
    return func.configWrite(offset + at, width, value);
  });
}
