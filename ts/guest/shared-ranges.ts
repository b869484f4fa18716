/**
 * The shared ranges that a consumer has received. Their files stay open for it.
 */
import type { AddressRange } from '../address-range.ts';
import { MemoryFilter } from '../dma/memory-filter.ts';
import { type DmaMapperOptions, readPeerPolicy } from '../dma/peer-policy.ts';
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { MemoryKind } from '../dma/target.ts';
import { readOptions } from '../arguments.ts';
import { IntervalMap } from '../interval-map.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { type MemoryFile, requestFileOf } from '../memory/memory-file.ts';

/** A range of guest memory that is part of a file. */
export interface SharedRange {
  /** Guest-physical addresses. */
  readonly range: AddressRange;
  /** The file, as in {@link DmaMapRequest.backing}. Ranges of one file have the same object. */
  readonly file: MemoryFile;
  /** Bytes from the start of the file. */
  readonly offset: bigint;
  /**
   * Whether devices, and other processes for them, may write.
   *
   * A process can write to a read-only range, too, if the file was opened for writing: its descriptor allows it.
   */
  readonly writable: boolean;
  /** Kind of the region. */
  readonly kind: MemoryKind;
  /** Name of the region. */
  readonly region: string;
}

/** A change of the shared ranges. Apply `removed` first: an added range may have the addresses of a removed one. */
export interface SharingChange {
  /** Ranges of earlier changes that are not part of guest memory any more. */
  readonly removed: readonly SharedRange[];
  /** New ranges. */
  readonly added: readonly SharedRange[];
}

/** Options of {@link MemorySharing.snapshot}. */
export type SharingOptions = Pick<DmaMapperOptions, 'peerToPeerDomains'>;

/** The target for which the shared ranges are selected. */
const ANOTHER_PROCESS = { name: 'sharing', accepts: { kinds: 'both', backing: 'shareable', readOnly: true } } as const;

/** Selects the sub-mappings that are shared. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function selectShared(
  space: GuestAddressSpace,
  options: SharingOptions,
): (sub: SubMapping) => SharedRange | undefined {
  const { peerToPeerDomains } = readOptions(options, ['peerToPeerDomains']);
  const filter = new MemoryFilter(ANOTHER_PROCESS, readPeerPolicy({ peerToPeerDomains }));
  return (sub) => {
    const { range, memory, writable, kind, name } = sub;
    if (space.map.region(sub.regionId)?.isBuffer === true) return undefined; // its file has all buffers of the VMM
    if (memory.file === undefined || filter.skips(sub) || filter.refusal(sub) !== undefined) return undefined;
    return Object.freeze({
      range,
      file: requestFileOf(memory.file),
      offset: memory.offset,
      writable,
      kind,
      region: name,
    });
  };
}

/** @internal */
export class ReceivedRanges {
  readonly #select: (sub: SubMapping) => SharedRange | undefined;
  /** The flat map at the last change. */
  #flat = new IntervalMap<SubMapping>();
  readonly #received = new Map<SubMapping, { readonly range: SharedRange; readonly release: () => void }>();
  /** Release the files of the ranges that the last change removed. */
  readonly #releases: (() => void)[] = [];

  constructor(select: (sub: SubMapping) => SharedRange | undefined) {
    this.#select = select;
  }

  /** Returns the change since the last one, and holds the added files; `undefined` if there is none. */
  update(flat: IntervalMap<SubMapping>): SharingChange | undefined {
    const removed: SharedRange[] = [];
    const added: SharedRange[] = [];
    for (const change of flat.changesSince(this.#flat)) {
      const old = change.removed && this.#received.get(change.removed);
      if (change.removed !== undefined && old !== undefined) {
        this.#received.delete(change.removed);
        this.#releases.push(old.release);
        removed.push(old.range);
      }
      const range = change.added && this.#select(change.added);
      if (range === undefined || change.added?.memory.file === undefined) continue;
      this.#received.set(change.added, { range, release: change.added.memory.file.retain() });
      added.push(range);
    }
    this.#flat = flat;
    if (removed.length + added.length === 0) return undefined;
    return Object.freeze({ removed: Object.freeze(removed), added: Object.freeze(added) });
  }

  /** Releases the files of the ranges that the last change removed. */
  releaseRemoved(): void {
    for (const release of this.#releases.splice(0)) release();
  }

  /** Releases all files. The ranges stay received. */
  releaseAll(): void {
    this.releaseRemoved();
    for (const [sub, { range, release }] of this.#received) {
      release();
      this.#received.set(sub, { range, release: () => {} });
    }
  }
}
