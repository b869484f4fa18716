/**
 * Explains an address of the guest: its memory, and whether and why DMA targets reach it. It reads a snapshot, so it
 * works without the VMM.
 */
import { readArray, readable } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { requireBigint } from '../number-types.ts';
import type { MemoryKind } from '../dma/target.ts';
import { type RegionAtAddress, layersAt, memoryAt } from './layers.ts';
import { type TargetAtAddress, targetViewAt, viewSentence } from './target-view.ts';
import type { MemorySnapshot } from './inspect.ts';
import { addressText } from './address-text.ts';
import { valueText } from '../value-text.ts';

/** The result of {@link explain}. Plain data: addresses are hexadecimal strings. */
export interface Explanation {
  /** All of it as sentences. */
  readonly text: string;
  /** The address. */
  readonly address: string;
  /** The active regions that have the address; the first has precedence and hides the others. */
  readonly regions: readonly RegionAtAddress[];
  /** The memory there; `undefined` if there is none, and if the VMM emulates it. */
  readonly memory?: MemoryAtAddress;
  /** The targets. */
  readonly targets: readonly TargetAtAddress[];
}

/** Memory at an address. */
export interface MemoryAtAddress {
  /** Of the whole sub-mapping that has the address. */
  readonly start: string;
  /** One past the last address of the whole sub-mapping. */
  readonly end: string;
  /** Name of its region. */
  readonly region: string;
  /** Of the region. */
  readonly kind: MemoryKind;
  /** Whether devices may write. */
  readonly writable: boolean;
  /** `NAME+OFFSET` of a file for this address, or `private`. */
  readonly backing: string;
}

/**
 * Explains an address: its memory, and whether and why DMA targets reach it.
 *
 * @param snapshot the result of `GuestMemory.inspect()`, or a copy by way of JSON
 * @param address guest-physical, which is the IOVA; 0 to 2^64 - 1
 * @param target name of a target. Default: all of them
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a malformed snapshot or address, or an unknown target
 */
export function explain(snapshot: MemorySnapshot, address: bigint, target?: string): Explanation {
  requireAddress(address);
  return readable('the snapshot', () => explained(copyOf(snapshot), address, target));
}

/** A copy whose lists are arrays: a caller may pass any object. */
function copyOf({ regions, flat, targets, ...others }: MemorySnapshot): MemorySnapshot {
  const withMappings = <M, T extends { readonly mappings: readonly M[] }>(one: T): T => ({
    ...one,
    mappings: readArray(one.mappings, 'the mappings of a snapshot'),
  });
  return {
    ...others,
    regions: readArray(regions, 'the regions of a snapshot').map(withMappings),
    flat: readArray(flat, 'the flat memory map of a snapshot'),
    targets: readArray(targets, 'the targets of a snapshot').map(withMappings),
  };
}

function explained(snapshot: MemorySnapshot, address: bigint, target?: string): Explanation {
  const known = snapshot.targets.map(({ name }) => name);
  if (target !== undefined && !known.includes(target)) {
    const there = known.length === 0 ? 'none has joined' : `there are ${known.join(', ')}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `there is no target ${valueText(target)}: ${there}`);
  }
  return explanation(snapshot, address, target);
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function requireAddress(address: bigint): void {
  requireBigint(address, 'address');
  if (address < 0n || address >= 1n << 64n) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"address" has 64 bits and is not ${valueText(address)}`);
  }
}

/** As {@link explain}, for checked arguments. @internal */
export function explanation(snapshot: MemorySnapshot, address: bigint, target?: string): Explanation {
  const regions = layersAt(snapshot, address);
  const memory = memoryAt(snapshot, address);
  const asked = snapshot.targets.filter(({ name }) => target === undefined || name === target);
  const targets = asked.map((one) => targetViewAt(one, address, memory));
  const sentences = [addressText(snapshot, address, regions, memory), ...targets.map(viewSentence)];
  return {
    text: sentences.join(' '),
    address: `0x${address.toString(16)}`,
    regions,
    ...(memory === undefined ? {} : { memory }),
    targets,
  };
}
