/**
 * Where DMA targets join guest memory, and leave it.
 */
import { CustomTarget } from '../dma/custom-target.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { TargetPort } from '../dma/target-port.ts';
import type { DmaTarget, MappingStatus, PeerToPeer } from '../dma/target.ts';
import { readOptions } from '../arguments.ts';
import { readTarget } from '../dma/target-traits.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import type { AddressSpace } from './address-space.ts';
import type { RefreshedMapping } from './device-changes.ts';

const POLICIES: readonly PeerToPeer[] = ['best-effort', 'required', 'off'];

/** @internal */
export function requirePolicy(peerToPeer: PeerToPeer = 'best-effort'): PeerToPeer {
  if (POLICIES.includes(peerToPeer)) return peerToPeer;
  throw new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    `peerToPeer is one of ${POLICIES.join(', ')}, not ${valueText(peerToPeer)}`,
  );
}

/** Registers DMA targets. */
export class DmaMapperClient {
  readonly #space: AddressSpace;

  /** @internal */
  constructor(space: AddressSpace) {
    this.#space = space;
  }

  /**
   * Maps everything that is active onto a target, in order of address, and lets it follow every change from then on.
   *
   * @param options.peerToPeer what a target is to do about device memory. Default: `best-effort`
   * @throws {PeerDmaError} what the target said, with `target` and `range`: nothing is left in the target then;
   * `ERR_IOVA_UNREACHABLE` and `ERR_FILE_REQUIRED` before RAM is faulted in; `ERR_ADDRESS_SPACE_LIMIT`,
   * `ERR_MEMORY_FAULT`, `ERR_VA_NOT_MAPPED`, `ERR_RANGE_QUARANTINED`, `ERR_INVALID_ARGUMENT`; `ERR_CLOSED` also when
   * {@link DmaMapperClient.targetClosed} is called for it meanwhile
   */
  async addDmaMapper(target: DmaTarget, options: { peerToPeer?: PeerToPeer } = {}): Promise<DmaMapperHandle> {
    const peerToPeer = requirePolicy(readOptions(options, ['peerToPeer']).peerToPeer);
    return joinPort(this.#space, new CustomTarget(readTarget(target)), peerToPeer);
  }

  /**
   * Says that a target and every mapping in it are gone, such as a container that was closed: it is forgotten without
   * being asked, and the memory that was quarantined for it is released. Said of a target that can still reach memory,
   * it hands that memory to others while a device writes to it. Works after {@link GuestMemory.close} too; for a target
   * that has not joined, it does nothing.
   *
   * Ends a call of the target that hangs: the call counts as done, the target is not called any more, and the change
   * goes on for the others. A target that was joining has not joined (`ERR_CLOSED`). What the call still does must not
   * reach memory.
   *
   * Other targets get what the quarantine kept from them.
   *
   * @throws {PeerDmaError} what one of them said to that. The next change of the region tries it again
   */
  async targetClosed(target: DmaTarget): Promise<void> {
    await this.#space.targetClosed(target);
  }
}

/** Registers an IOMMU address space of the kernel; as {@link DmaMapperClient.addDmaMapper} otherwise. @internal */
export async function joinPort(
  space: AddressSpace,
  port: TargetPort,
  peerToPeer: PeerToPeer,
): Promise<DmaMapperHandle> {
  return new DmaMapperHandle(space, await space.register(port, peerToPeer));
}

/** One target's place in guest memory. */
export class DmaMapperHandle {
  readonly #space: AddressSpace;
  readonly #mapper: DmaMapper;

  /** @internal */
  constructor(space: AddressSpace, mapper: DmaMapper) {
    this.#space = space;
    this.#mapper = mapper;
  }

  /** Of the target. */
  get name(): string {
    return this.#mapper.name;
  }

  /**
   * How each active sub-mapping stands with this target, in order of address. What is quarantined comes besides: it may
   * overlap a sub-mapping that has failed because of it.
   */
  status(): MappingStatus[] {
    return this.#mapper.status.all();
  }

  /**
   * Maps anew what the target misses of device memory, and what may be void without anybody having been told: an iommufd
   * mapping of a BAR is, once its device was reset or switched off by another hand than this process's. While it is mapped
   * anew, DMA to it faults.
   *
   * @returns for each stretch of device memory how it was, as far as that is known, and how it is now
   */
  refresh(): Promise<RefreshedMapping[]> {
    return this.#space.refresh(this.#mapper);
  }

  /**
   * Unmaps all that the target holds and lets go of it. Idempotent.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: those ranges are quarantined and the target stays
   * for them, though nothing new is mapped to it; {@link DmaMapperClient.targetClosed} ends it
   */
  async remove(): Promise<void> {
    await this.#space.unregister(this.#mapper);
  }

  /** As {@link DmaMapperHandle.remove}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove();
  }
}
