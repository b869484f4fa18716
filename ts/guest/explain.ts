/**
 * What is at an address of the guest, whether a DMA target reaches it, and why or why not: from a snapshot, so that it can
 * be asked of a VMM that is gone.
 */
import { readArray, readable } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import type { MemoryKind } from '../dma/target.ts';
import { type Layer, layersAt, memoryAt } from './layers.ts';
import { type TargetView, targetViewAt, viewSentence } from './target-view.ts';
import type { MemorySnapshot } from './inspect.ts';
import { addressText } from './address-text.ts';
import { valueText } from '../value-text.ts';

/** What {@link explain} says. Plain data: addresses are hexadecimal. */
export interface Explanation {
  /** Everything that follows, for people. */
  readonly text: string;
  /** What was asked about. */
  readonly address: string;
  /** The active regions that have the address; the first has precedence and hides the others. */
  readonly regions: readonly Layer[];
  /** What is to be seen there: `undefined` where there is nothing, and where the VMM answers. */
  readonly memory?: SeenMemory;
  /** How the targets asked for stand to it. */
  readonly targets: readonly TargetView[];
}

/** Memory at an address. */
export interface SeenMemory {
  /** Of the whole sub-mapping that has the address. */
  readonly start: string;
  /** One past the last address of the whole sub-mapping. */
  readonly end: string;
  /** Name of the region that shows it. */
  readonly region: string;
  /** Of the region. */
  readonly kind: MemoryKind;
  /** Whether devices may write. */
  readonly writable: boolean;
  /** `NAME+OFFSET` of a file for this very address, or `private`. */
  readonly backing: string;
}

/**
 * Says what is at an address, and for DMA targets whether they reach it, and why or why not.
 *
 * @param snapshot what {@link GuestMemory.inspect} gave, also when it has been JSON since
 * @param address guest-physical, which is the IOVA
 * @param target name of a target. Default: all of them
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for what is no snapshot, no address, or no target in it
 */
export function explain(snapshot: MemorySnapshot, address: bigint, target?: string): Explanation {
  requireAddress(address);
  return readable('the snapshot', () => explained(copyOf(snapshot), address, target));
}

/** A copy with lists that are arrays: a snapshot may come from anywhere. */
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
  if (typeof address !== 'bigint' || address < 0n || address >= 1n << 64n) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `an address is a bigint of 64 bits, not ${valueText(address)}`);
  }
}

/** {@link explain} of arguments that are right. @internal */
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
