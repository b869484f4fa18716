/**
 * Configuration mechanism #1: config space through the I/O ports 0xcf8 to 0xcff.
 *
 * PCI Local Bus Specification 3.0, 3.2.2.3.2. CONFIG_ADDRESS at 0xcf8 selects a function and a dword, CONFIG_DATA at
 * 0xcfc accesses it.
 */
import { PeerDmaError } from '../../errors.ts';
import { requireNumber } from '../../number-types.ts';
import { valueText } from '../../value-text.ts';
import { allOnes } from '../pci-fault.ts';
import type { ConfigAccesses } from './config-accesses.ts';
import type { FunctionAddress } from './function-address.ts';
import type { Pending } from '../pending.ts';

/** @internal */
export const CONFIG_ADDRESS = 0xcf8;
/** The first of four ports. @internal */
export const CONFIG_DATA = 0xcfc;
const END = 0xd00;

/** Bits of CONFIG_ADDRESS. The others are reserved and read as 0. */
const ENABLE = 0x8000_0000;
const WRITABLE = 0x80ff_fffc;
const REGISTER = 0xfc;

/** The bytes of an access that are in CONFIG_DATA. */
interface DataAccess {
  readonly address: FunctionAddress;
  /** In config space. */
  readonly offset: number;
  /** Index of the first one in the access. */
  readonly at: number;
  readonly length: number;
}

/** @internal */
export class ConfigPorts {
  readonly #config: ConfigAccesses;
  #address = 0;

  constructor(config: ConfigAccesses) {
    this.#config = config;
  }

  /** See {@link PciHostBridge.portRead}. */
  read(port: number, size: number): Pending<number> {
    requirePort(port, size);
    if (isConfigAddress(port, size)) return this.#address;
    const bytes = allOnes(size);
    const data = this.#dataAccess(port, size);
    if (data === undefined) return numberOf(bytes);
    const finish = (read: Uint8Array): number => {
      bytes.set(read, data.at);
      return numberOf(bytes);
    };
    const read = this.#config.read(data.address, data.offset, data.length);
    return read instanceof Promise ? read.then(finish) : finish(read);
  }

  /** See {@link PciHostBridge.portWrite}. */
  write(port: number, size: number, value: number): Pending<void> {
    requirePort(port, size);
    requireNumber(value, 'value');
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** (8 * size)) {
      const expected = `a value of ${size} bytes is a whole number from 0 to 2^${8 * size} - 1`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${expected}, not ${valueText(value)}`);
    }
    if (isConfigAddress(port, size)) {
      this.#address = (value & WRITABLE) >>> 0;
      return undefined;
    }
    const data = this.#dataAccess(port, size);
    if (data === undefined) return undefined;
    const bytes = Uint8Array.from({ length: data.length }, (_, index) => value >>> (8 * (data.at + index)));
    return this.#config.write(data.address, data.offset, bytes);
  }

  /**
   * Returns the part of an access that reaches config space.
   *
   * An access that is not aligned may begin before CONFIG_DATA, or end after it. Its other bytes are accesses to ports
   * that do not exist.
   */
  #dataAccess(port: number, size: number): DataAccess | undefined {
    const start = Math.max(port, CONFIG_DATA);
    const length = Math.min(port + size, END) - start;
    if (length <= 0 || (this.#address & ENABLE) === 0) return undefined;
    const offset = (this.#address & REGISTER) + start - CONFIG_DATA;
    return { address: (this.#address >> 8) & 0xffff, offset, at: start - port, length };
  }
}

/** Only a dword accesses CONFIG_ADDRESS. All other accesses are to ports of other devices, such as 0xcf9. */
function isConfigAddress(port: number, size: number): boolean {
  return port === CONFIG_ADDRESS && size === 4;
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE` */
function requirePort(port: number, size: number): void {
  requireNumber(port, 'port');
  requireNumber(size, 'size');
  if (size !== 1 && size !== 2 && size !== 4) {
    const text = `an access to an I/O port has 1, 2 or 4 bytes, not ${valueText(size)}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
  }
  if (!Number.isInteger(port)) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `an I/O port is a whole number, not ${valueText(port)}`);
  }
  if (port >= CONFIG_ADDRESS && port < END) return;
  const text = `the host bridge has the I/O ports 0xcf8 to 0xcff, not ${valueText(port)}. Pass it only their accesses.`;
  throw new PeerDmaError('ERR_OUT_OF_RANGE', text);
}

function numberOf(bytes: Uint8Array): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
}
