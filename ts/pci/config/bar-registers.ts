/** The base address registers of a function: existing BARs, their sizes, and decoded addresses. */
import { hex } from '../../address-range.ts';
import { type ConfigImage, u32 } from './config-image.ts';
import type { Emulation } from './emulation.ts';
import { pinnedAddress, requirePinnedDisjoint } from './check-pinned-bars.ts';
import {
  BASE_ADDRESS_0,
  BASE_ADDRESS_COUNT,
  BASE_ADDRESS_MEM_MASK,
  BASE_ADDRESS_MEM_PREFETCH,
  BASE_ADDRESS_MEM_TYPE_64,
  BASE_ADDRESS_MEM_TYPE_MASK,
  BASE_ADDRESS_SPACE_IO,
  COMMAND,
  COMMAND_MEMORY,
  ROM_ADDRESS,
  ROM_ADDRESS_ENABLE,
} from './registers.ts';

/** The type of a BAR. `memory64` takes two registers. */
export type BarKind = 'memory32' | 'memory64' | 'rom';

/** A BAR or the ROM, as the guest sees it. I/O BARs are hidden from a guest. */
export interface Bar {
  /** VFIO's index of its region: 0 to 5, 6 for the ROM. */
  readonly index: number;
  readonly kind: BarKind;
  readonly prefetchable: boolean;
  /** Length of the register: a power of two, at least the length of the region. */
  readonly length: bigint;
  /** The pinned guest address; writes of the guest do not change it. */
  readonly pinned: bigint | undefined;
}

/** VFIO's index of the ROM's region. */
export const ROM_INDEX = 6;
const MIN_BAR = 16n;
const MIN_ROM = 0x800n;
const LARGEST_32 = 1n << 31n;
const END_32 = 1n << 32n;
const END_64 = 1n << 64n;
const ALL_ONES = 0xffffffff;
const LARGEST_64 = 1n << 63n;

/** Options of {@link BarRegisters}. @internal */
export interface BarOptions {
  /** In bytes, by VFIO's index. */
  readonly regionLengths: readonly (bigint | undefined)[];
  readonly pinned: ReadonlyMap<number, bigint>;
}

/** @internal */
export class BarRegisters {
  readonly bars: readonly Bar[];

  /** @throws {PeerDmaError} as {@link ConfigSpace}'s constructor does */
  constructor(image: ConfigImage, { regionLengths, pinned }: BarOptions) {
    const regions = regionLengths.map((length) => (length === 0n ? undefined : length));
    const found = [...memoryBars(image, regions)];
    const rom = regions[ROM_INDEX];
    if (rom !== undefined) found.push(romBar(image, rom));
    this.bars = found.map((bar) => ({ ...bar, pinned: pinnedAddress(image.bdf, bar, pinned.get(bar.index)) }));
    for (const [index, address] of pinned) {
      // The device has no BAR of that number.
      if (!found.some((bar) => bar.index === index)) pinnedAddress(image.bdf, { index }, address);
    }
    requirePinnedDisjoint(image.bdf, this.bars);
  }

  /** Defines the rules of all seven registers. */
  define(emulation: Emulation): void {
    emulation.defineReserved(BASE_ADDRESS_0, 4 * BASE_ADDRESS_COUNT);
    emulation.defineReserved(ROM_ADDRESS, 4);
    for (const bar of this.bars) {
      const [low, high] = halves(~(bar.length - 1n));
      const writable = bar.kind === 'rom' ? low | ROM_ADDRESS_ENABLE : low & BASE_ADDRESS_MEM_MASK;
      this.#define(emulation, bar, offsetOf(bar), { type: typeBits(bar), writable, half: 0 });
      if (bar.kind === 'memory64') {
        this.#define(emulation, bar, offsetOf(bar) + 4, { type: 0, writable: high, half: 1 });
      }
    }
  }

  #define(
    emulation: Emulation,
    bar: Bar,
    offset: number,
    { type, writable, half }: { type: number; writable: number; half: 0 | 1 },
  ): void {
    const value = (bar.pinned === undefined ? 0 : halves(bar.pinned)[half]) | type;
    emulation.define({
      offset,
      length: 4,
      value,
      emulated: 0xffffffff,
      writable: storesWrittenValue(bar) ? 0xffffffff : writable,
    });
  }

  /**
   * Replaces stored BAR values in the bytes that a guest reads.
   *
   * It applies to registers that store the written value. A pinned BAR reads as its address, or as its size after a
   * write of all ones, so that the guest can size it. Another BAR reads as the written value, masked by its size.
   *
   * @param read the bytes read of the state at that offset
   */
  patchRead(state: Uint8Array, offset: number, read: Uint8Array): void {
    for (const bar of this.bars) {
      if (!storesWrittenValue(bar)) continue;
      const address = bar.pinned === undefined ? undefined : halves(bar.pinned);
      const size = halves(~(bar.length - 1n));
      for (const half of bar.kind === 'memory64' ? ([0, 1] as const) : ([0] as const)) {
        const register = offsetOf(bar) + 4 * half;
        if (register + 4 <= offset || register >= offset + read.length) continue;
        const [ones, type] = half === 0 ? [BASE_ADDRESS_MEM_MASK, typeBits(bar)] : [0xffffffff, 0];
        const written = u32(state, register);
        const sized = (written & ones) >>> 0 === ones;
        const value = (address === undefined || sized ? written & size[half] & ones : address[half]) | type;
        for (const index of read.keys()) {
          const byte = offset + index - register;
          if (byte >= 0 && byte < 4) read[index] = value >>> (8 * byte);
        }
      }
    }
  }

  /** Returns the guest addresses of the BARs that decode. */
  decoded(state: Uint8Array): ReadonlyMap<number, bigint> {
    const addresses = new Map<number, bigint>();
    if ((u32(state, COMMAND) & COMMAND_MEMORY) === 0) return addresses;
    for (const bar of this.bars) {
      const address = bar.pinned ?? guestAddress(state, bar);
      if (address !== undefined) addresses.set(bar.index, address);
    }
    return addresses;
  }
}

/**
 * Whether the registers store all written bits, including those that the guest reads as 0.
 *
 * All ones could not be distinguished from an address otherwise: in a pinned BAR, which has no writable bits, and in
 * the lower half of 64 bits, whose masked value is a valid address.
 */
function storesWrittenValue({ kind, pinned }: Bar): boolean {
  return pinned !== undefined || kind === 'memory64';
}

/** Returns the address at which the guest has placed a BAR; `undefined` if it has none. */
function guestAddress(state: Uint8Array, bar: Bar): bigint | undefined {
  const register = offsetOf(bar);
  const low = u32(state, register);
  if (bar.kind === 'rom' && (low & ROM_ADDRESS_ENABLE) === 0) return undefined;
  const wide = bar.kind === 'memory64';
  const high = wide ? u32(state, register + 4) : 0;
  // All ones in a half (in the lower one also below the size) mean that the guest sizes the BAR: it has no address
  // then, whatever the other half contains. The lower half of a BAR of 4 GiB or more has no address bits.
  const sized = bar.length <= LARGEST_32 && (low & BASE_ADDRESS_MEM_MASK) >>> 0 === BASE_ADDRESS_MEM_MASK;
  if (wide && (sized || high === ALL_ONES)) return undefined;
  const address = (BigInt(low) | (wide ? BigInt(high) << 32n : 0n)) & -bar.length;
  // All ones request the size. The BAR would end at the end of the address space, where no guest places one. It must
  // not be mapped there between the two writes, over the interrupt window or the firmware of a machine.
  if (address === 0n || address + bar.length >= (wide ? END_64 : END_32)) return undefined;
  return address;
}

function* memoryBars(
  image: ConfigImage,
  regionLengths: readonly (bigint | undefined)[],
): Generator<Omit<Bar, 'pinned'>> {
  for (let index = 0; index < BASE_ADDRESS_COUNT; index++) {
    const register = offsetOf({ index });
    const value = image.u32(register);
    if ((value & BASE_ADDRESS_SPACE_IO) !== 0) continue;
    const length = regionLengths[index];
    const type = value & BASE_ADDRESS_MEM_TYPE_MASK;
    const wide = type === BASE_ADDRESS_MEM_TYPE_64;
    if (type === BASE_ADDRESS_MEM_TYPE_MASK && length !== undefined) {
      throw image.bad(register, `BAR ${index} has a reserved type`);
    }
    if (wide && index === BASE_ADDRESS_COUNT - 1 && length !== undefined) {
      throw image.bad(register, `BAR ${index} has 64 bits, but there is no register for the upper half`);
    }
    if (wide && regionLengths[index + 1] !== undefined && index < BASE_ADDRESS_COUNT - 1) {
      throw image.bad(
        register,
        `BAR ${index} has 64 bits, but its upper half, BAR ${index + 1}, is a region of its own`,
      );
    }
    if (length !== undefined) {
      yield {
        index,
        kind: wide ? 'memory64' : 'memory32',
        prefetchable: (value & BASE_ADDRESS_MEM_PREFETCH) !== 0,
        length: registerLength(image, register, length, MIN_BAR, wide ? LARGEST_64 : LARGEST_32),
      };
    }
    if (wide) index += 1;
  }
}

function romBar(image: ConfigImage, length: bigint): Omit<Bar, 'pinned'> {
  return {
    index: ROM_INDEX,
    kind: 'rom',
    prefetchable: false,
    length: registerLength(image, ROM_ADDRESS, length, MIN_ROM, LARGEST_32),
  };
}

/** Rounds the length of a region up to that of its register, a power of two. */
function registerLength(image: ConfigImage, register: number, region: bigint, least: bigint, most: bigint): bigint {
  let length = least;
  while (length < region) length <<= 1n;
  if (length <= most) return length;
  throw image.bad(register, `a region of ${hex(region)} bytes does not fit into its register`);
}

function offsetOf({ index }: Pick<Bar, 'index'>): number {
  return index === ROM_INDEX ? ROM_ADDRESS : BASE_ADDRESS_0 + 4 * index;
}

/** The read-only type bits of a memory BAR, in its lower register. @internal */
export function typeBits({ kind, prefetchable }: Pick<Bar, 'kind' | 'prefetchable'>): number {
  return (kind === 'memory64' ? BASE_ADDRESS_MEM_TYPE_64 : 0) | (prefetchable ? BASE_ADDRESS_MEM_PREFETCH : 0);
}

/** Splits 64 bits into the values of two registers. */
function halves(value: bigint): readonly [low: number, high: number] {
  return [Number(BigInt.asUintN(32, value)), Number(BigInt.asUintN(32, value >> 32n))];
}
