/**
 * BARs that stay at a fixed guest address, for platforms whose devices talk to each other untranslated, so that a guest
 * address has to be the host's.
 */
import { AddressRange } from '../address-range.ts';
import { readEntries } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { type GuestMemory, addressSpaceOf } from '../guest/guest-memory.ts';
import type { Bar } from './config/config-space.ts';
import type { PhysicalFunction } from './physical-function.ts';
import { valueText } from '../value-text.ts';

/** By the number of the BAR: a guest address, or `host` for where the host has placed it. */
export type PinnedBars = Readonly<Record<number, 'host' | bigint>>;

/**
 * The addresses that were asked for.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function pinnedAddresses({ bdf, regions }: PhysicalFunction, bars: PinnedBars): ReadonlyMap<number, bigint> {
  const pinned = new Map<number, bigint>();
  for (const [key, place] of readEntries(bars, 'pinned BARs')) {
    const index = Number(key);
    const fail = (problem: string) =>
      new PeerDmaError('ERR_INVALID_ARGUMENT', `BAR ${key} of ${bdf} can't be pinned: ${problem}`, { device: bdf });
    if (!Number.isInteger(index) || index < 0 || index > 5) throw fail('BARs are numbered from 0 to 5');
    if (place !== 'host' && typeof place !== 'bigint')
      throw fail(`its place is 'host' or a bigint, not ${valueText(place)}`);
    const address = place === 'host' ? regions[index]?.hostAddress : place;
    if (address === undefined) throw fail('where the host has it is not known. Give the address itself');
    pinned.set(index, address);
  }
  return pinned;
}

/** Where pinned BARs of each guest memory are, by the claim of their device. */
const taken = new WeakMap<GuestMemory, Map<object, readonly AddressRange[]>>();

/**
 * Claims the places of a device's pinned BARs until the claim is given back.
 *
 * @throws {PeerDmaError} `ERR_OVERLAP` with RAM that is there, or with a pinned BAR of another device; `ERR_OUT_OF_RANGE` beyond the
 * guest's address width
 * @internal
 */
export function claimPinned(device: string, memory: GuestMemory, bars: readonly Bar[]): () => void {
  const space = addressSpaceOf(memory);
  const ranges: AddressRange[] = [];
  const claims = taken.get(memory) ?? new Map<object, readonly AddressRange[]>();
  for (const { index, pinned, length } of bars) {
    if (pinned === undefined) continue;
    const range = AddressRange.of(pinned, length);
    const fail = (code: 'ERR_OVERLAP' | 'ERR_OUT_OF_RANGE', problem: string) =>
      new PeerDmaError(code, `BAR ${index} of ${device} can't be pinned to ${range}: ${problem}`, { device, range });
    if (range.end > 1n << BigInt(space.width)) {
      throw fail('ERR_OUT_OF_RANGE', `the guest's addresses have ${space.width} bits`);
    }
    const ram = space.map.flat.overlapping(range).find(({ kind }) => kind === 'ram');
    if (ram !== undefined) throw fail('ERR_OVERLAP', `"${ram.name}" has ${ram.range}`);
    for (const other of [...claims.values()].flat()) {
      if (other.overlaps(range)) throw fail('ERR_OVERLAP', `another device's BAR is pinned to ${other}`);
    }
    ranges.push(range);
  }
  const claim = {};
  if (ranges.length > 0) taken.set(memory, claims.set(claim, ranges));
  return () => void claims.delete(claim);
}
