/** The checked BARs and ROM of a simulated device: their registers and contents. */
import { AddressRange, hex, isRange } from '../../address-range.ts';
import { readArray, readOptions, requireBytes } from '../../arguments.ts';
import { type ErrorCode, PeerDmaError } from '../../errors.ts';
import { requireBigint, requireNumber } from '../../number-types.ts';
import { type MemoryFile, fileMemoryOf } from '../../memory/memory-file.ts';
import { hostPageSize } from '../../memory/page-size.ts';
import { ROM_INDEX } from '../config/bar-registers.ts';
import {
  BASE_ADDRESS_0,
  BASE_ADDRESS_COUNT,
  BASE_ADDRESS_MEM_PREFETCH,
  BASE_ADDRESS_MEM_TYPE_64,
  BASE_ADDRESS_MEM_TYPE_MASK,
  BASE_ADDRESS_SPACE_IO,
} from '../config/registers.ts';
import type { SimulatedBar, SimulatedDeviceOptions, SimulatedRegisters } from './options.ts';
import { valueText } from '../../value-text.ts';

/** Minimum register lengths of memory BARs, I/O BARs and the ROM. */
const MIN = { memory: 16n, io: 4n, rom: 1n << 11n };
/**
 * Maximum lengths. A 32-bit BAR shares the first 4 GiB with others; an I/O BAR has at most 256 bytes (PCI 3.0,
 * 6.2.5.1).
 */
const MAX = { memory32: 1n << 31n, memory64: 1n << 63n, io: 256n, rom: 1n << 24n };

/** @internal */
export interface BarLayout {
  /** 0 to 5; 6 is the ROM. */
  readonly index: number;
  readonly kind: 'memory32' | 'memory64' | 'io' | 'rom';
  readonly prefetchable: boolean;
  /** Length of the region, in bytes. */
  readonly length: bigint;
  /** Length of the register: the next power of two. */
  readonly registerLength: bigint;
  readonly mmapAreas: readonly AddressRange[];
  readonly hostAddress: bigint | undefined;
  readonly registers: SimulatedRegisters | undefined;
  /** The caller's file, if there is one. */
  readonly contents: MemoryFile | undefined;
}

/**
 * Checks the BARs in the options.
 *
 * @param recorded a recorded config space with the defaults
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`, `ERR_OVERLAP`
 * @internal
 */
export function layOutBars(
  { bdf, bars = [], rom }: SimulatedDeviceOptions,
  recorded: DataView | undefined,
): readonly BarLayout[] {
  const laidOut = bars.map((bar) => layOutBar(bdf, bar, recorded));
  const owner = new Map<number, number>();
  for (const { index, kind } of laidOut) {
    for (const register of kind === 'memory64' ? [index, index + 1] : [index]) {
      const other = owner.get(register);
      if (register >= BASE_ADDRESS_COUNT) throw fail(bdf, index, 'ERR_OUT_OF_RANGE', 'its upper half has no register');
      if (other !== undefined) {
        throw fail(bdf, index, 'ERR_OVERLAP', `it needs register ${register}, which BAR ${other} has`);
      }
      owner.set(register, index);
    }
  }
  return rom === undefined ? laidOut : [...laidOut, layOutRom(bdf, rom)];
}

function layOutBar(bdf: string, bar: SimulatedBar, recorded: DataView | undefined): BarLayout {
  const { index, length, registers, contents, hostAddress } = bar;
  requireNumber(index, 'index', bdf);
  if (!Number.isInteger(index) || index < 0 || index >= BASE_ADDRESS_COUNT) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `BARs of ${bdf} are numbered from 0 to 5, not ${valueText(index)}`);
  }
  const found = recordedKind(recorded?.getUint32(BASE_ADDRESS_0 + 4 * index, true) ?? 0);
  const { kind = found.kind, prefetchable = found.prefetchable } = bar;
  if (kind !== 'memory32' && kind !== 'memory64' && kind !== 'io') {
    throw fail(bdf, index, 'ERR_INVALID_ARGUMENT', `its kind is memory32, memory64 or io, not ${valueText(kind)}`);
  }
  const registerLength = requireLength(bdf, index, length, kind);
  if (hostAddress !== undefined) requireHostAddress(bdf, index, hostAddress, registerLength, kind);
  const memory = kind !== 'io' && registers === undefined;
  if (registers !== undefined && contents !== undefined) {
    throw fail(bdf, index, 'ERR_INVALID_ARGUMENT', 'registers and contents exclude each other');
  }
  if (contents !== undefined) {
    if (fileMemoryOf(contents).device !== undefined) {
      const text = `${contents.name} is the memory of another device. Create a MemoryFile for the contents`;
      throw fail(bdf, index, 'ERR_INVALID_ARGUMENT', text);
    }
    if (contents.length < length) {
      const text = `it has ${hex(length)} bytes, but ${contents.name} has only ${hex(contents.length)}`;
      throw fail(bdf, index, 'ERR_OUT_OF_RANGE', text);
    }
  }
  const usual = memory && length % hostPageSize() === 0n ? [AddressRange.of(0n, length)] : [];
  const mmapAreas = readArray(bar.mmapAreas ?? usual, `the mmapAreas of BAR ${index} of ${bdf}`);
  requireAreas(bdf, { index, length, memory }, mmapAreas);
  if (registers !== undefined) requireRegisters(bdf, index, registers);
  return { index, kind, prefetchable, length, registerLength, mmapAreas, hostAddress, registers, contents };
}

function layOutRom(bdf: string, { length, contents }: NonNullable<SimulatedDeviceOptions['rom']>): BarLayout {
  const registerLength = requireLength(bdf, ROM_INDEX, length, 'rom');
  if (contents !== undefined && BigInt(requireBytes(contents).length) > length) {
    throw fail(bdf, ROM_INDEX, 'ERR_OUT_OF_RANGE', `its contents have ${contents.length} bytes, and it ${length}`);
  }
  const nothing = { mmapAreas: [], hostAddress: undefined, registers: undefined, contents: undefined };
  return { index: ROM_INDEX, kind: 'rom', prefetchable: false, length, registerLength, ...nothing };
}

function recordedKind(register: number): { kind: 'memory32' | 'memory64' | 'io'; prefetchable: boolean } {
  if ((register & BASE_ADDRESS_SPACE_IO) !== 0) return { kind: 'io', prefetchable: false };
  const wide = (register & BASE_ADDRESS_MEM_TYPE_MASK) === BASE_ADDRESS_MEM_TYPE_64;
  return { kind: wide ? 'memory64' : 'memory32', prefetchable: (register & BASE_ADDRESS_MEM_PREFETCH) !== 0 };
}

function requireLength(bdf: string, index: number, length: bigint, kind: BarLayout['kind']): bigint {
  requireBigint(length, 'length', bdf);
  if (length < 0n) throw fail(bdf, index, 'ERR_INVALID_ARGUMENT', `its length is not ${valueText(length)}`);
  if (length === 0n) throw fail(bdf, index, 'ERR_EMPTY_RANGE', 'it has no bytes');
  if (length > MAX[kind]) {
    throw fail(
      bdf,
      index,
      'ERR_OUT_OF_RANGE',
      `${hex(length)} bytes are more than ${kind} can have, ${hex(MAX[kind])}`,
    );
  }
  const least = kind === 'rom' || kind === 'io' ? MIN[kind] : MIN.memory;
  const powerOfTwo = 1n << BigInt((length - 1n).toString(2).length);
  // The formula is wrong for a length of 1; the minimum covers that.
  return powerOfTwo > least ? powerOfTwo : least;
}

function requireHostAddress(
  bdf: string,
  index: number,
  address: bigint,
  length: bigint,
  kind: 'memory32' | 'memory64' | 'io',
): void {
  requireBigint(address, 'hostAddress', bdf);
  if (address < 0n) throw fail(bdf, index, 'ERR_INVALID_ARGUMENT', `its host address is not ${valueText(address)}`);
  if (address % length !== 0n) {
    throw fail(bdf, index, 'ERR_UNALIGNED', `its host address ${hex(address)} is not a multiple of ${hex(length)}`);
  }
  const end = kind === 'memory64' ? 1n << 64n : 1n << 32n;
  if (address + length > end) {
    throw fail(bdf, index, 'ERR_OUT_OF_RANGE', `at the host address ${hex(address)} it passes ${hex(end)}`);
  }
}

function requireAreas(
  bdf: string,
  { index, length, memory }: { index: number; length: bigint; memory: boolean },
  areas: readonly AddressRange[],
): void {
  if (!areas.every(isRange)) {
    throw fail(bdf, index, 'ERR_INVALID_ARGUMENT', 'its mmapAreas are AddressRanges');
  }
  if (!memory && areas.length > 0) throw fail(bdf, index, 'ERR_INVALID_ARGUMENT', 'I/O and registers cannot be mapped');
  const beyond = areas.find(({ end }) => end > length);
  if (beyond !== undefined) throw fail(bdf, index, 'ERR_OUT_OF_RANGE', `${beyond} passes its end, ${hex(length)}`);
}

function requireRegisters(bdf: string, index: number, registers: SimulatedRegisters): void {
  const { read, write, reset } = readOptions(registers, ['read', 'write', 'reset'], `the registers of BAR ${index}`);
  const valid = typeof read === 'function' && typeof write === 'function';
  if (valid && (reset === undefined || typeof reset === 'function')) return;
  throw fail(bdf, index, 'ERR_INVALID_ARGUMENT', 'registers have the methods read and write, and may have reset');
}

function fail(bdf: string, index: number, code: ErrorCode, problem: string): PeerDmaError {
  const what = index === ROM_INDEX ? 'the ROM' : `BAR ${index}`;
  return new PeerDmaError(code, `${what} of the simulated ${bdf} is invalid: ${problem}`, { bdf });
}
