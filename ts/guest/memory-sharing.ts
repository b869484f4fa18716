/**
 * The guest's memory as files, for other processes that map it themselves.
 */
import { type AbortOptions, readSignal } from '../abort.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import { SharingChanges } from './sharing-changes.ts';
import {
  ReceivedRanges,
  type SharedRange,
  type SharingChange,
  type SharingOptions,
  selectShared,
} from './shared-ranges.ts';

/**
 * The ranges of guest memory that another process can map by a descriptor.
 *
 * These are RAM and device memory of regular files (`shareable` in {@link AcceptedMemory}). Private memory and BARs are
 * not listed, and neither are DMA buffers of the VMM and device memory of other peer-to-peer domains.
 */
export class MemorySharing {
  readonly #space: GuestAddressSpace;

  /** @internal */
  constructor(space: GuestAddressSpace) {
    this.#space = space;
  }

  /**
   * Returns the ranges now, in order of address. Their files are open until a change removes the memory.
   *
   * @param options.peerToPeerDomains the domains whose device memory is included. Default: `['default']`
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  snapshot(options: SharingOptions = {}): readonly SharedRange[] {
    const select = selectShared(this.#space, options);
    return Object.freeze(this.#space.map.flat.values().flatMap((sub) => select(sub) ?? []));
  }

  /**
   * Returns the changes of the ranges, in order. The first one adds all ranges of that moment.
   *
   * Guest memory never waits for the consumer. One that is slow receives several changes as one: the difference between
   * the ranges that it has received and those of now. A consumer receives a change after guest memory has made it, so a
   * process may still access the file of a removed range then. Use a {@link DmaTarget} for memory that must not be
   * accessed after a change.
   *
   * The files of received ranges stay open until the consumer asks for the change after the one that removes them. The
   * iteration ends with guest memory: the last change removes all ranges, and their files may be closed. End it with
   * `break`, `return()` or the signal, also while `next()` waits, otherwise the files stay open until guest memory is
   * closed.
   *
   * @param options.peerToPeerDomains the domains whose device memory is included. Default: `['default']`
   * @param options.signal ends the iteration with the reason of the signal. Default: none
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
   */
  changes(options: SharingOptions & AbortOptions = {}): AsyncGenerator<SharingChange, void, void> {
    return new SharingChanges(this.#space, new ReceivedRanges(selectShared(this.#space, options)), readSignal(options));
  }
}
