/** The MSI-X capability of the guest, and the location of the table and of the pending bits in BARs. */
import { AddressRange, hex } from '../../address-range.ts';
import type { Capability } from './capabilities.ts';
import { type ConfigImage, u16 } from './config-image.ts';
import type { Emulation } from './emulation.ts';
import type { InterruptControl } from './interrupt-control.ts';
import {
  MSIX_BIR,
  MSIX_ENTRY_SIZE,
  MSIX_FLAGS,
  MSIX_FLAGS_ENABLE,
  MSIX_FLAGS_MASKALL,
  MSIX_FLAGS_QSIZE,
  MSIX_PBA,
  MSIX_SIZEOF,
  MSIX_TABLE,
} from './registers.ts';

/** A part of a BAR. */
export interface BarArea {
  /** VFIO's index of the BAR. */
  readonly bar: number;
  /** Bytes from its start. */
  readonly offset: bigint;
  /** Bytes. */
  readonly length: bigint;
}

/** Returns the offsets within the BAR. @internal */
export function rangeOf({ offset, length }: BarArea): AddressRange {
  return AddressRange.of(offset, length);
}

/** The location of the MSI-X structures, which a guest must not access directly. */
export interface MsixShape {
  /** 1 to 2048. */
  readonly vectors: number;
  /** An entry of 16 bytes for each vector. */
  readonly table: BarArea;
  /** A bit for each vector, in whole 8 bytes. */
  readonly pending: BarArea;
}

/** Reads the location of the structures from a capability, without checking it. @internal */
export function msixShape(image: ConfigImage, { offset }: Capability): MsixShape {
  const vectors = (image.u16(offset + MSIX_FLAGS) & MSIX_FLAGS_QSIZE) + 1;
  const area = (register: number, length: number): BarArea => {
    const value = image.u32(offset + register);
    const bar = value & MSIX_BIR;
    return { bar, offset: BigInt(value - bar), length: BigInt(length) };
  };
  return {
    vectors,
    table: area(MSIX_TABLE, vectors * MSIX_ENTRY_SIZE),
    pending: area(MSIX_PBA, Math.ceil(vectors / 64) * 8),
  };
}

/** @internal */
export class MsixCapability {
  readonly offset: number;
  readonly length: number = MSIX_SIZEOF;
  readonly shape: MsixShape;
  readonly #image: ConfigImage;

  /**
   * @param regions lengths of the memory BARs, by VFIO's index
   * @throws {PeerDmaError} `ERR_BAD_CONFIG_SPACE` if the table or the pending bits are not within a BAR, or overlap
   */
  constructor(image: ConfigImage, capability: Capability, regions: ReadonlyMap<number, bigint>) {
    const { offset } = capability;
    this.offset = offset;
    this.#image = image;
    this.shape = msixShape(image, capability);
    const { table, pending } = this.shape;
    const requireRoom = (register: number, area: BarArea, what: string): void => {
      const region = regions.get(area.bar);
      const at = `${hex(area.offset)} of BAR ${area.bar}`;
      const where = `MSI-X has its ${what}, ${hex(area.length)} bytes, at ${at}, which `;
      if (region === undefined) throw image.bad(register, `${where}is not memory, or has no host address`);
      if (area.offset + area.length > region) throw image.bad(register, `${where}ends at ${hex(region)}`);
    };
    requireRoom(offset + MSIX_TABLE, table, 'table');
    requireRoom(offset + MSIX_PBA, pending, 'pending bits');
    if (table.bar === pending.bar && overlap(table, pending)) {
      throw image.bad(offset + MSIX_PBA, 'the table and the pending bits of MSI-X overlap');
    }
  }

  define(emulation: Emulation): void {
    const { offset } = this;
    emulation.define({
      offset: offset + MSIX_FLAGS,
      length: 2,
      value: this.#image.u16(offset + MSIX_FLAGS) & MSIX_FLAGS_QSIZE,
      emulated: 0xffff,
      writable: MSIX_FLAGS_ENABLE | MSIX_FLAGS_MASKALL,
    });
    for (const register of [offset + MSIX_TABLE, offset + MSIX_PBA]) {
      emulation.define({ offset: register, length: 4, value: this.#image.u32(register), emulated: 0xffffffff });
    }
  }

  control(state: Uint8Array): NonNullable<InterruptControl['msix']> {
    const flags = u16(state, this.offset + MSIX_FLAGS);
    return { enabled: (flags & MSIX_FLAGS_ENABLE) !== 0, masked: (flags & MSIX_FLAGS_MASKALL) !== 0 };
  }
}

function overlap(a: BarArea, b: BarArea): boolean {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}
