/**
 * How many bits a guest-physical address has.
 */
import { type AddressRange, hex } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';

/** A page of 4 KiB. @internal */
export const MIN_WIDTH = 12;

/** User space has 47 bits, and the process's own memory lies in them. @internal */
export const MAX_WIDTH = 46;

/**
 * 1 TiB, as QEMU's processors have by default (`TCG_PHYS_ADDR_BITS`, target/i386/cpu.h). A process can reserve it some
 * fifty times, once for each guest: docs/decisions.md.
 */
const DEFAULT_WIDTH = 40;

/**
 * Returns the requested width or the default: 40, or more if RAM reaches into the upper half. Firmware places 64-bit
 * BARs above RAM.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function addressWidthFor(ram: readonly AddressRange[], asked: number | undefined): number {
  if (asked === undefined) {
    const end = ram.reduce((highest, range) => (range.end > highest ? range.end : highest), 0n);
    return Math.min(MAX_WIDTH, Math.max(DEFAULT_WIDTH, bitsBelow(end) + 1));
  }
  requireNumber(asked, 'addressWidth');
  if (Number.isInteger(asked) && asked >= MIN_WIDTH && asked <= MAX_WIDTH) return asked;
  throw new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    `addressWidth is a whole number of bits from ${MIN_WIDTH} to ${MAX_WIDTH}, not ${valueText(asked)}`,
  );
}

/** Why a range does not fit into a guest's addresses, with the remedy. Returns `undefined` if it fits. @internal */
export function beyondWidth({ end }: AddressRange, width: number): string | undefined {
  if (end <= 1n << BigInt(width)) return undefined;
  const needed = bitsBelow(end);
  const remedy =
    needed > MAX_WIDTH
      ? `Place it below ${hex(1n << BigInt(MAX_WIDTH))}: guest memory has ${MAX_WIDTH} bits at most`
      : `Give GuestMemory.create an addressWidth of ${needed} or more`;
  return `passes the end of the guest's ${width}-bit address space. ${remedy}`;
}

/** The bits that all addresses below `end` need. */
function bitsBelow(end: bigint): number {
  return end === 0n ? 0 : (end - 1n).toString(2).length;
}
