/** The guest addresses of a host bridge: ECAM and the windows for BARs. Checks them when the bridge is created. */
import { type AddressRange, hex, requireRange } from '../../address-range.ts';
import { readArray } from '../../arguments.ts';
import { type ErrorCode, PeerDmaError } from '../../errors.ts';
import { beyondWidth } from '../../guest/address-width.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../../guest/guest-memory.ts';

/** Bytes of ECAM for one bus: 32 devices of 8 functions. PCI Express Base Specification, 7.2.2. */
const BUS_LENGTH = 1n << 20n;
/** The most buses: those of 8 bits. */
const MAX_BUSES = 256n;
/** Windows are whole pages of 4 KiB: a bridge of PCI has windows of 1 MiB, and ACPI any. */
const WINDOW_UNIT = 0x1000n;
const END_32 = 1n << 32n;

/** @internal */
export interface BridgeRanges {
  readonly ecam: AddressRange | undefined;
  /** In ascending order. */
  readonly windows: readonly AddressRange[];
}

/** A range with its name for messages. */
interface Named {
  readonly name: string;
  readonly range: AddressRange;
}

/**
 * Checks the ranges of a bridge.
 *
 * @throws {PeerDmaError} as the constructor of {@link PciHostBridge}
 * @internal
 */
export function readRanges(
  memory: GuestMemory | undefined,
  ecam: AddressRange | undefined,
  given: readonly AddressRange[],
): BridgeRanges {
  const windows = readArray(given, 'the windows of a host bridge');
  if (ecam !== undefined) requireEcam(ecam);
  for (const window of windows) requireWindow(window);
  windows.sort((a, b) => (a.start < b.start ? -1 : 1));
  const all = windows.map((range): Named => ({ name: 'the window', range }));
  if (ecam !== undefined) all.push({ name: 'ECAM at', range: ecam });
  requireDisjoint(all);
  if (memory !== undefined) requireFree(memory, all);
  return { ecam, windows };
}

/** How many buses ECAM has; all 256 without ECAM. @internal */
export function busCount(ecam: AddressRange | undefined): number {
  return Number(ecam === undefined ? MAX_BUSES : ecam.length / BUS_LENGTH);
}

/** Checks the number of buses and the alignment. PCI Express Base Specification, 7.2.2. */
function requireEcam(ecam: AddressRange): void {
  requireRange(ecam);
  const { start, length } = ecam;
  const buses = length / BUS_LENGTH;
  const isPower = length === buses * BUS_LENGTH && buses > 0n && (buses & (buses - 1n)) === 0n && buses <= MAX_BUSES;
  if (!isPower) {
    const remedy = 'Pass 1 MiB for each bus, and 1, 2, 4 or another power of two up to 256 buses.';
    throw creationError('ERR_INVALID_ARGUMENT', ecam, `ECAM at ${ecam} has ${hex(length)} bytes. ${remedy}`);
  }
  if (start % length === 0n) return;
  const reason = `ECAM at ${ecam} does not start at a multiple of its length, ${hex(length)}. Align it.`;
  throw creationError('ERR_UNALIGNED', ecam, reason);
}

function requireWindow(window: AddressRange): void {
  requireRange(window);
  if (window.start % WINDOW_UNIT !== 0n || window.end % WINDOW_UNIT !== 0n) {
    const reason = `the window ${window} is not a whole number of pages of 4 KiB. Align both of its ends.`;
    throw creationError('ERR_UNALIGNED', window, reason);
  }
  if (window.end <= END_32 || window.start >= END_32) return;
  const reason = `the window ${window} is below and above 4 GiB. Pass two windows: 32-bit BARs fit into the lower one.`;
  throw creationError('ERR_OUT_OF_RANGE', window, reason);
}

function requireDisjoint(all: readonly Named[]): void {
  const sorted = [...all].sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
  for (const [index, { name, range }] of sorted.entries()) {
    const next = sorted[index + 1];
    if (next?.range.overlaps(range) !== true) continue;
    const reason = `${next.name} ${next.range} overlaps ${name} ${range}. Move one of them.`;
    throw creationError('ERR_OVERLAP', next.range, reason);
  }
}

/** Checks that guest memory has these addresses, and no RAM there. */
function requireFree(memory: GuestMemory, all: readonly Named[]): void {
  const { map, width } = guestAddressSpaceOf(memory);
  for (const { name, range } of all) {
    const beyond = beyondWidth(range, width);
    if (beyond !== undefined) throw creationError('ERR_OUT_OF_RANGE', range, `${name} ${range} ${beyond}.`);
    const ram = map.flat.overlapping(range).find(({ kind }) => kind === 'ram');
    if (ram === undefined) continue;
    const reason = `${name} ${range} overlaps the RAM "${ram.name}" at ${ram.range}. Move one of them.`;
    throw creationError('ERR_OVERLAP', range, reason);
  }
}

function creationError(code: ErrorCode, range: AddressRange, reason: string): PeerDmaError {
  return new PeerDmaError(code, `PciHostBridge: creation failed: ${reason}`, { range });
}
