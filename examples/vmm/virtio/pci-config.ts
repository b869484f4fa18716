/**
 * The config space of a virtio device on PCI, with one BAR of 32 bits.
 *
 * Source: Virtual I/O Device specification 1.2, 4.1.
 */
import { AddressRange } from 'peerdma';

/** A structure of registers in the BAR. */
export interface Structure {
  /** Its number (4.1.4). */
  readonly kind: number;
  /** Its place in the BAR. */
  readonly offset: number;
  readonly length: number;
  /** Further bytes of its capability. Default: none */
  readonly more?: readonly number[];
}

/** The identity of a device. */
export interface PciIdentity {
  /** The number of its kind of virtio device. */
  readonly type: number;
  /** Bytes of its BAR, a power of two. */
  readonly barLength: number;
  readonly structures: readonly Structure[];
}

const LENGTH = 256;
const VENDOR = 0x1af4;
/** Added to the number of the kind of device. */
const FIRST_DEVICE = 0x1040;
/** A device without a class of its own. */
const CLASS = 0xff;

const COMMAND = 0x04;
const STATUS = 0x06;
const REVISION = 0x08;
const CLASS_CODE = 0x0b;
const BAR = 0x10;
const SUBSYSTEM_VENDOR = 0x2c;
const SUBSYSTEM = 0x2e;
const FIRST_CAPABILITY = 0x34;
const INTERRUPT_LINE = 0x3c;
const INTERRUPT_PIN = 0x3d;
const CAPABILITIES = 0x40;

const MEMORY_DECODE = 1 << 1;
const BUS_MASTER = 1 << 2;
const NO_PIN = 1 << 10;
/** Bits of Status: there are capabilities; the pin is asserted. */
const HAS_CAPABILITIES = 1 << 4;
const PENDING = 1 << 3;
const VENDOR_SPECIFIC = 9;
const INTA = 1;

/** Registers of config space, and those that the guest writes. */
export class VirtioPciConfig {
  readonly #bytes = new DataView(new ArrayBuffer(LENGTH));
  readonly #writable = new DataView(new ArrayBuffer(LENGTH));
  readonly #barLength: number;

  constructor({ type, barLength, structures }: PciIdentity) {
    this.#barLength = barLength;
    const bytes = this.#bytes;
    bytes.setUint16(0, VENDOR, true);
    bytes.setUint16(2, FIRST_DEVICE + type, true);
    bytes.setUint16(STATUS, HAS_CAPABILITIES, true);
    bytes.setUint8(REVISION, 1);
    bytes.setUint8(CLASS_CODE, CLASS);
    bytes.setUint16(SUBSYSTEM_VENDOR, VENDOR, true);
    bytes.setUint16(SUBSYSTEM, FIRST_DEVICE + type, true);
    bytes.setUint8(INTERRUPT_PIN, INTA);
    let link = FIRST_CAPABILITY;
    let at = CAPABILITIES;
    for (const { kind, offset, length, more = [] } of structures) {
      bytes.setUint8(link, at);
      const size = 16 + more.length;
      for (const [index, byte] of [VENDOR_SPECIFIC, 0, size, kind].entries()) bytes.setUint8(at + index, byte);
      bytes.setUint32(at + 8, offset, true);
      bytes.setUint32(at + 12, length, true);
      for (const [index, byte] of more.entries()) bytes.setUint8(at + 16 + index, byte);
      link = at + 1;
      at += (size + 3) & ~3;
    }
    this.#writable.setUint16(COMMAND, MEMORY_DECODE | BUS_MASTER | NO_PIN, true);
    this.#writable.setUint32(BAR, -barLength, true);
    this.#writable.setUint8(INTERRUPT_LINE, 0xff);
  }

  /** @param isPending whether the pin is asserted */
  read(offset: number, size: number, isPending: boolean): number {
    let value = 0;
    for (let index = size - 1; index >= 0; index--) {
      const at = offset + index;
      const byte = at < LENGTH ? this.#bytes.getUint8(at) : 0xff;
      value = value * 256 + (at === STATUS && isPending ? byte | PENDING : byte);
    }
    return value;
  }

  write(offset: number, size: number, value: number): void {
    for (let index = 0; index < size && offset + index < LENGTH; index++) {
      const at = offset + index;
      const mask = this.#writable.getUint8(at);
      this.#bytes.setUint8(at, (this.#bytes.getUint8(at) & ~mask) | (Math.floor(value / 256 ** index) & mask));
    }
  }

  /** The guest-physical addresses of the BAR, if it is decoded. */
  get bar(): AddressRange | undefined {
    const start = this.#bytes.getUint32(BAR, true);
    const isDecoded = (this.#bytes.getUint16(COMMAND, true) & MEMORY_DECODE) !== 0;
    return isDecoded && start !== 0 ? AddressRange.of(BigInt(start), BigInt(this.#barLength)) : undefined;
  }

  /** Whether the guest lets the device access memory. */
  get isBusMaster(): boolean {
    return (this.#bytes.getUint16(COMMAND, true) & BUS_MASTER) !== 0;
  }

  /** Whether the guest has enabled the pin. */
  get hasPin(): boolean {
    return (this.#bytes.getUint16(COMMAND, true) & NO_PIN) === 0;
  }
}
