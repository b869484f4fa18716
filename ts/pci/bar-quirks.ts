/** Parts of BARs that the VMM traps: pages without a mapping, and mirrors of config space. */
import { types } from 'node:util';
import { AddressRange, hex } from '../address-range.ts';
import { readArray, readOptions, requireBoolean, requireUnsigned } from '../arguments.ts';
import { type ErrorCode, PeerDmaError } from '../errors.ts';
import { requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';
import type { ConfigSpace } from './config/config-space.ts';
import { CFG_SPACE_EXP_SIZE, CFG_SPACE_SIZE } from './config/registers.ts';
import type { EmulatedArea, TrappedPart } from './mmio.ts';
import type { PhysicalFunction } from './physical-function.ts';

/**
 * A part of a BAR whose accesses trap to the VMM.
 *
 * All pages that it touches are unmapped: for the guest's processors, and for other devices. Accesses of the guest
 * reach the device, except those of its own bytes that have a method here.
 */
export interface BarTrap {
  /** 0 to 5. */
  readonly bar: number;
  /** Bytes from the start of the BAR; a multiple of 8 with a method. */
  readonly offset: bigint;
  /** Bytes; a multiple of 8 with a method. */
  readonly length: bigint;
  /**
   * Reads for the guest. Default: reads the device
   *
   * @param offset bytes from the start of the BAR; a multiple of the length
   * @param length bytes: 1, 2, 4 or 8
   */
  read?(offset: bigint, length: number): Uint8Array;
  /**
   * Writes for the guest. Default: writes the device
   *
   * @param offset bytes from the start of the BAR; a multiple of the length
   * @param bytes 1, 2, 4 or 8
   * @returns a promise if the write takes effect later, or nothing
   */
  write?(offset: bigint, bytes: Uint8Array): void | Promise<void>;
}

/**
 * A part of a BAR in which a device repeats its config space.
 *
 * The guest's accesses there reach the config space that the guest has: with its BARs, overrides and added
 * capabilities. {@link nvidiaConfigMirrors} returns those of NVIDIA's GPUs.
 */
export interface ConfigMirror {
  /** 0 to 5. */
  readonly bar: number;
  /** Bytes from the start of the BAR to the copy of offset 0; a multiple of 8. */
  readonly offset: bigint;
  /** Bytes, a multiple of 8, up to 4096. Default: 4096, or 256 for a device whose config space has no more */
  readonly length?: bigint;
  /**
   * Whether writes within the first two bytes of the MSI capability reach the BAR of the device. They are read-only in
   * config space. GPUs of NVIDIA take such a write as the acknowledgement of an interrupt. Default: false
   */
  readonly msiAcknowledge?: boolean;
}

/** A mirror at its checked place. @internal */
export interface PlacedMirror extends TrappedPart {
  readonly msiAcknowledge: boolean;
}

const MIRROR_REASON = 'it mirrors config space';
const TRAP_REASON = 'the VMM traps it';
/** The widest access: none is partly in an area whose bounds are multiples of it. */
const WIDEST = 8n;

/** The device, for checks. @internal */
export interface QuirkContext {
  readonly device: PhysicalFunction;
  readonly config: ConfigSpace;
  /** Emulated parts of its BARs, with which others must not overlap. */
  readonly emulated: readonly TrappedPart[];
}

/** Traps at their checked places. @internal */
export interface PlacedTraps {
  /** Those with a method. */
  readonly emulated: readonly EmulatedArea[];
  /** Those without: they change no access of the guest, and may overlap all others. */
  readonly unmapped: readonly TrappedPart[];
}

/**
 * Reads and checks the traps of a caller.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_UNALIGNED`; `ERR_OVERLAP`
 * for a trap with a method over an emulated part
 * @internal
 */
export function readTraps(traps: readonly BarTrap[], context: QuirkContext): PlacedTraps {
  const emulated: EmulatedArea[] = [];
  const unmapped: TrappedPart[] = [];
  for (const one of readArray(traps, 'traps')) {
    const given = readOptions(one, ['bar', 'offset', 'length', 'read', 'write'], 'a trap');
    const { bar, read, write } = given;
    const fail = failure(context, bar, 'trapping');
    const range = requireRange(context, fail, given);
    for (const [name, method] of Object.entries({ read, write })) {
      if (method === undefined || typeof method === 'function') continue;
      throw fail('ERR_INVALID_ARGUMENT', `its ${name} is not a method, but ${valueText(method)}. Omit it.`);
    }
    const part = { bar, range, reason: TRAP_REASON };
    if (read === undefined && write === undefined) {
      unmapped.push(part);
      continue;
    }
    requireFree(fail, range, bar, [...context.emulated, ...emulated]);
    emulated.push({
      ...part,
      ...(read && { read: (offset, length) => readTrap(fail, one, read, range.start + offset, length) }),
      ...(write && { write: (offset, bytes) => Reflect.apply(write, one, [range.start + offset, bytes]) }),
    });
  }
  return { emulated, unmapped };
}

/**
 * Reads and checks the mirrors of a caller.
 *
 * @throws {PeerDmaError} as {@link readTraps}
 * @internal
 */
export function readMirrors(mirrors: readonly ConfigMirror[], context: QuirkContext): PlacedMirror[] {
  const placed: PlacedMirror[] = [];
  const areas = [...context.emulated];
  const whole = BigInt(context.config.size <= CFG_SPACE_SIZE ? CFG_SPACE_SIZE : CFG_SPACE_EXP_SIZE);
  for (const one of readArray(mirrors, 'mirrors')) {
    const given = readOptions(one, ['bar', 'offset', 'length', 'msiAcknowledge'], 'a mirror');
    const { bar, offset, length = whole, msiAcknowledge = false } = given;
    requireBoolean(msiAcknowledge, '"msiAcknowledge" of a mirror');
    const fail = failure(context, bar, 'mirroring config space');
    const range = requireRange(context, fail, { bar, offset, length });
    if (range.length > BigInt(CFG_SPACE_EXP_SIZE)) {
      throw fail('ERR_OUT_OF_RANGE', `config space has ${CFG_SPACE_EXP_SIZE} bytes, not ${length}. Use less.`);
    }
    requireFree(fail, range, bar, areas);
    const mirror = { bar, range, reason: MIRROR_REASON, msiAcknowledge };
    placed.push(mirror);
    areas.push(mirror);
  }
  return placed;
}

type Fail = (code: ErrorCode, reason: string) => PeerDmaError;

function failure({ device: { bdf } }: QuirkContext, bar: number, what: string): Fail {
  const name = typeof bar === 'number' ? String(bar) : valueText(bar);
  return (code, reason) => new PeerDmaError(code, `BAR ${name} of ${bdf}: ${what} failed: ${reason}`, { bdf });
}

/** Returns the offsets of a part, all within a memory BAR of the device. */
function requireRange(
  { device, config }: QuirkContext,
  fail: Fail,
  { bar, offset, length }: Pick<BarTrap, 'bar' | 'offset' | 'length'>,
): AddressRange {
  requireNumber(bar, 'bar', device.bdf);
  requireUnsigned(offset, 'offset');
  requireUnsigned(length, 'length');
  const region = device.regions[bar];
  if (region === undefined || !config.bars.some(({ index, kind }) => index === bar && kind !== 'rom')) {
    throw fail('ERR_INVALID_ARGUMENT', 'the device has no memory BAR of that number. Use one from 0 to 5.');
  }
  if (length === 0n) throw fail('ERR_EMPTY_RANGE', `0 bytes at ${hex(offset)}. Pass 1 byte or more.`);
  if (offset + length > region.length) {
    const reason = `${hex(length)} bytes at ${hex(offset)} pass the end of the BAR at ${hex(region.length)}`;
    throw fail('ERR_OUT_OF_RANGE', `${reason}. Use offsets within the BAR.`);
  }
  return AddressRange.of(offset, length);
}

/** Requires that accesses within a part are emulated once, and as a whole. */
function requireFree(fail: Fail, range: AddressRange, bar: number, others: readonly TrappedPart[]): void {
  if (range.start % WIDEST !== 0n || range.length % WIDEST !== 0n) {
    throw fail('ERR_UNALIGNED', `its bounds ${range} are not multiples of ${WIDEST}. Use a larger part.`);
  }
  const other = others.find((each) => each.bar === bar && each.range.overlaps(range));
  if (other === undefined) return;
  throw fail('ERR_OVERLAP', `at ${range}, ${other.range} is emulated already: ${other.reason}. Use another part.`);
}

function readTrap(
  fail: Fail,
  trap: BarTrap,
  read: NonNullable<BarTrap['read']>,
  offset: bigint,
  length: number,
): Uint8Array {
  const bytes: unknown = Reflect.apply(read, trap, [offset, length]);
  if (types.isUint8Array(bytes) && bytes.length === length) return bytes;
  const reason = `its read at ${hex(offset)} returned ${valueText(bytes)}`;
  throw fail('ERR_INVALID_ARGUMENT', `${reason}. Return a Uint8Array of ${length} bytes.`);
}
