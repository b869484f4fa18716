/**
 * Half-open ranges of 64-bit addresses.
 */
import { PeerDmaError } from './errors.ts';
import { requireBigint } from './number-types.ts';
import { PACKAGE_KEY, requirePackageKey } from './package-key.ts';
import { INSPECT } from './object-text.ts';
import { sizeOf } from './size.ts';
import { digitsOf, valueText } from './value-text.ts';

const U64_END = 1n << 64n;

/** Lower-case hexadecimal with `0x`, as the kernel and `lspci` print addresses. @internal */
export function hex(value: bigint): string {
  return digitsOf(value, () => `0x${value.toString(16)}`);
}

/** Whether any value is a range. @internal */
export let isRange: (value: unknown) => value is AddressRange;

/** A non-empty, half-open range `start..end` of addresses in bytes, within 64 bits. Immutable. */
export class AddressRange {
  /** The first address. */
  readonly start: bigint;
  /** One past the last address; 2^64 for a range that ends with the last byte of the address space. */
  readonly end: bigint;
  /** In bytes. */
  readonly length: bigint;

  /** The brand of constructed ranges: proxies and other objects with this prototype do not have it. */
  // oxlint-disable-next-line no-unused-private-class-members -- `#made in value` uses it
  readonly #made = true;

  static {
    isRange = (value): value is AddressRange => typeof value === 'object' && value !== null && #made in value;
  }

  private constructor(key: typeof PACKAGE_KEY, start: bigint, end: bigint) {
    requirePackageKey(key, 'AddressRange.of()');
    this.start = start;
    this.end = end;
    this.length = end - start; // computed once: each subtraction allocates a bigint
    Object.freeze(this); // ranges are keys, and JavaScript callers have no `readonly`
  }

  /**
   * The range of `length` bytes that begins at `start`.
   *
   * @param start first address, 0 to 2^64 - 1
   * @param length bytes, 1 to 2^64 - `start`
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a value that is not a bigint or is negative, `ERR_EMPTY_RANGE`
   * for length 0, `ERR_OUT_OF_RANGE` if `start + length` passes 2^64.
   */
  static of(start: bigint, length: bigint): AddressRange {
    requireBigint(start, 'start');
    requireBigint(length, 'length');
    if (start < 0n || length < 0n) {
      const given = `${valueText(start)} and ${valueText(length)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"start" and "length" are not negative, got ${given}`);
    }
    if (length === 0n) {
      throw new PeerDmaError('ERR_EMPTY_RANGE', `the range at ${hex(start)} is empty`);
    }
    const end = start + length;
    if (end > U64_END) {
      throw new PeerDmaError(
        'ERR_OUT_OF_RANGE',
        `${hex(start)} + ${hex(length)} passes the end of the 64-bit address space`,
      );
    }
    return new AddressRange(PACKAGE_KEY, start, end);
  }

  /** `start..end` of checked values. @internal */
  static between(start: bigint, end: bigint): AddressRange {
    return new AddressRange(PACKAGE_KEY, start, end);
  }

  /**
   * Whether the range contains an address, or all of another range.
   *
   * @param other an address as a bigint, or a range
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for anything else
   */
  contains(other: AddressRange | bigint): boolean {
    if (typeof other === 'bigint') return this.start <= other && other < this.end;
    if (typeof other === 'number') requireBigint(other, 'other');
    requireRange(other);
    return this.start <= other.start && other.end <= this.end;
  }

  /** Whether the two share at least one address. */
  overlaps(other: AddressRange): boolean {
    requireRange(other);
    return this.start < other.end && other.start < this.end;
  }

  /** Whether the two have the same addresses. */
  equals(other: AddressRange): boolean {
    requireRange(other);
    return this.start === other.start && this.end === other.end;
  }

  /** `0x1000..0x2000` */
  toString(): string {
    return `${hex(this.start)}..${hex(this.end)}`;
  }

  /** As {@link AddressRange.toString}, for `JSON.stringify`, which rejects bigints. */
  toJSON(): string {
    return this.toString();
  }

  /** `AddressRange 0x1000..0x2000 (4 KiB)`, for `console.log`. @internal */
  [INSPECT](): string {
    return `AddressRange ${this.toString()} (${sizeOf(this.length)})`;
  }
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for other values than an {@link AddressRange} @internal */
export function requireRange(range: AddressRange): void {
  if (isRange(range)) return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'a range is an AddressRange: AddressRange.of(start, length)');
}

/**
 * Fails unless both ends of the range are multiples of `size`.
 *
 * @throws {PeerDmaError} `ERR_UNALIGNED`; `ERR_INVALID_ARGUMENT` for other values than a range
 * @internal
 */
export function requireAligned(range: AddressRange, size: bigint, what: string): void {
  requireRange(range);
  if (range.start % size !== 0n || range.end % size !== 0n) {
    throw new PeerDmaError('ERR_UNALIGNED', `${what} ${range} is not a whole number of pages of ${size} bytes`, {
      range,
    });
  }
}
