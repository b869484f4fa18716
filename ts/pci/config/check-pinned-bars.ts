/** Checks the addresses of pinned BARs. */
import { AddressRange } from '../../address-range.ts';
import { PeerDmaError } from '../../errors.ts';
import type { Bar } from './bar-registers.ts';
import { valueText } from '../../value-text.ts';

/** A BAR to pin; only an index if the device does not have it. */
type Pinnable = Pick<Bar, 'index'> & Partial<Pick<Bar, 'kind' | 'length'>>;

/**
 * Checks the address of a pinned BAR.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`
 * @internal
 */
export function pinnedAddress(
  bdf: string,
  { index, kind, length }: Pinnable,
  address: bigint | undefined,
): bigint | undefined {
  if (address === undefined) return undefined;
  const fail = (code: 'ERR_INVALID_ARGUMENT' | 'ERR_OUT_OF_RANGE' | 'ERR_UNALIGNED', problem: string): PeerDmaError =>
    new PeerDmaError(code, `BAR ${String(index)} of ${bdf}: pinning failed: ${problem}`, { bdf });
  if (kind === undefined || length === undefined) {
    throw fail('ERR_INVALID_ARGUMENT', 'the device has no memory BAR of that number');
  }
  if (kind === 'rom') throw fail('ERR_INVALID_ARGUMENT', 'it is the ROM, which the guest switches on by itself');
  if (typeof address !== 'bigint' || address <= 0n) {
    throw fail('ERR_INVALID_ARGUMENT', `its address is a positive bigint (0 means none), not ${valueText(address)}`);
  }
  const bits = kind === 'memory64' ? 64n : 32n;
  if (address + length > 1n << bits) {
    throw fail(
      'ERR_OUT_OF_RANGE',
      `0x${address.toString(16)} + 0x${length.toString(16)} passes the end of its ${bits} bits`,
    );
  }
  if (address % length !== 0n) {
    throw fail('ERR_UNALIGNED', `0x${address.toString(16)} is not a multiple of its length, 0x${length.toString(16)}`);
  }
  return address;
}

/** @throws {PeerDmaError} `ERR_OVERLAP` @internal */
export function requirePinnedDisjoint(bdf: string, bars: readonly Bar[]): void {
  const places: { index: number; range: AddressRange }[] = [];
  for (const { index, length, pinned } of bars) {
    if (pinned === undefined) continue;
    const range = AddressRange.of(pinned, length);
    for (const other of places) {
      if (!other.range.overlaps(range)) continue;
      throw new PeerDmaError(
        'ERR_OVERLAP',
        `BAR ${index} of ${bdf}: pinning to ${range} failed: BAR ${other.index} is pinned to ${other.range}`,
        { bdf, range },
      );
    }
    places.push({ index, range });
  }
}
