/**
 * BARs pinned to a fixed guest address.
 *
 * Platforms whose devices reach each other untranslated require that the guest address equals the host address.
 */
import { AddressRange } from '../address-range.ts';
import { readEntries } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { requireBigint } from '../number-types.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import type { Bar } from './config/config-space.ts';
import type { PhysicalFunction } from './physical-function.ts';
import { valueText } from '../value-text.ts';

/** Pinned addresses by BAR number, 0 to 5: a guest-physical address, or `host` for the host address. */
export type PinnedBars = Readonly<Record<number, 'host' | bigint>>;

/**
 * Returns the requested addresses.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function pinnedAddresses({ bdf, regions }: PhysicalFunction, bars: PinnedBars): ReadonlyMap<number, bigint> {
  const pinned = new Map<number, bigint>();
  for (const [key, requested] of readEntries(bars, 'pinned BARs')) {
    const index = Number(key);
    const fail = (problem: string) =>
      new PeerDmaError('ERR_INVALID_ARGUMENT', `BAR ${key} of ${bdf}: pinning failed: ${problem}`, { bdf });
    if (!Number.isInteger(index) || index < 0 || index > 5) throw fail('BARs are numbered from 0 to 5');
    if (typeof requested === 'number') requireBigint(requested, `bars[${index}] of ${bdf}`, bdf);
    if (requested !== 'host' && typeof requested !== 'bigint')
      throw fail(`its address is 'host' or a bigint, not ${valueText(requested)}`);
    const address = requested === 'host' ? regions[index]?.hostAddress : requested;
    if (address === undefined) throw fail('its host address is unknown. Pass a guest address');
    pinned.set(index, address);
  }
  return pinned;
}

/**
 * Claims the guest addresses of a device's pinned BARs.
 *
 * @returns releases the claim
 * @throws {PeerDmaError} `ERR_OVERLAP` with existing RAM, or with a pinned BAR of another device; `ERR_OUT_OF_RANGE`
 * beyond the guest's address width
 * @internal
 */
export function claimPinned(bdf: string, memory: GuestMemory, bars: readonly Bar[]): () => void {
  const space = guestAddressSpaceOf(memory);
  const ranges: AddressRange[] = [];
  for (const { index, pinned, length } of bars) {
    if (pinned === undefined) continue;
    const range = AddressRange.of(pinned, length);
    const fail = (code: 'ERR_OVERLAP' | 'ERR_OUT_OF_RANGE', problem: string) =>
      new PeerDmaError(code, `BAR ${index} of ${bdf}: pinning to ${range} failed: ${problem}`, { bdf, range });
    if (range.end > 1n << BigInt(space.width)) {
      throw fail('ERR_OUT_OF_RANGE', `the guest's addresses have ${space.width} bits`);
    }
    const ram = space.map.flat.overlapping(range).find(({ kind }) => kind === 'ram');
    if (ram !== undefined) throw fail('ERR_OVERLAP', `"${ram.name}" has ${ram.range}`);
    for (const other of space.pinned) {
      if (other.overlaps(range)) throw fail('ERR_OVERLAP', `another device's BAR is pinned to ${other}`);
    }
    ranges.push(range);
  }
  for (const range of ranges) space.pinned.add(range);
  return () => {
    for (const range of ranges) space.pinned.delete(range);
  };
}
