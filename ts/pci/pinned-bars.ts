/**
 * BARs pinned to a fixed guest address.
 *
 * Platforms whose devices reach each other untranslated require that the guest address equals the host address.
 */
import { AddressRange } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import type { Bar } from './config/config-space.ts';
import type { PhysicalFunction } from './physical-function.ts';

/**
 * Returns the guest addresses of pinned BARs.
 *
 * @param requested by BAR number; `host` for the host address
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for an unknown host address
 * @internal
 */
export function pinnedAddresses(
  { bdf, regions }: PhysicalFunction,
  requested: ReadonlyMap<number, 'host' | bigint>,
): ReadonlyMap<number, bigint> {
  const pinned = new Map<number, bigint>();
  for (const [index, where] of requested) {
    const address = where === 'host' ? regions[index]?.hostAddress : where;
    if (address === undefined) {
      const text = `BAR ${index} of ${bdf}: pinning failed: its host address is unknown. Pass a guest address`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf });
    }
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
