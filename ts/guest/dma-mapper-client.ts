/**
 * Adds DMA targets to guest memory and removes them.
 */
import { CustomTarget } from '../dma/custom-target.ts';
import type { DmaMapper } from '../dma/dma-mapper.ts';
import type { TargetPort } from '../dma/target-port.ts';
import { type PeerPolicy, type DmaMapperOptions, readPeerPolicy } from '../dma/peer-policy.ts';
import type { DmaTarget, MappingStatus } from '../dma/target.ts';
import { readTarget } from '../dma/target-traits.ts';
import { INSPECT, objectText } from '../object-text.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';
import type { RefreshedMapping } from './device-changes.ts';

/** Registers DMA targets. */
export class DmaMapperClient {
  readonly #space: GuestAddressSpace;

  /** @internal */
  constructor(space: GuestAddressSpace) {
    this.#space = space;
  }

  /**
   * Maps all active memory to a target, and every change from then on.
   *
   * @throws {PeerDmaError} the error of the target, with `target` and `range`: the target has nothing mapped then;
   * `ERR_IOVA_UNREACHABLE` and `ERR_FILE_REQUIRED` before RAM is faulted in; `ERR_ADDRESS_SPACE_LIMIT`,
   * `ERR_MEMORY_FAULT`, `ERR_VA_NOT_MAPPED`, `ERR_RANGE_QUARANTINED`, `ERR_INVALID_ARGUMENT`; `ERR_CLOSED` also when
   * {@link DmaMapperClient.targetClosed} is called for it meanwhile
   */
  async addDmaMapper(target: DmaTarget, options: DmaMapperOptions = {}): Promise<DmaMapperHandle> {
    const policy = readPeerPolicy(options);
    return joinPort(this.#space, new CustomTarget(readTarget(target)), policy);
  }

  /**
   * Removes a target whose mappings are all gone, for example with its container. No method of it is called, and the
   * memory in its quarantine is released. If the target can still reach memory, a device may overwrite memory that has
   * been reused. Works after {@link GuestMemory.close}, too. Does nothing for a target that has not joined.
   *
   * A pending call of the target counts as done, no further call is made, and the change continues for the others. A
   * target that is joining has not joined (`ERR_CLOSED`). The pending call must not map any more memory.
   *
   * Memory that the quarantine blocked is mapped to the other targets.
   *
   * @throws {PeerDmaError} the error of one of them. The next change of the region retries
   */
  async targetClosed(target: DmaTarget): Promise<void> {
    await this.#space.targetClosed(target);
  }
}

/** Registers an IOMMU address space of the kernel, like {@link DmaMapperClient.addDmaMapper}. @internal */
export async function joinPort(
  space: GuestAddressSpace,
  port: TargetPort,
  policy: PeerPolicy,
): Promise<DmaMapperHandle> {
  return new DmaMapperHandle(space, await space.register(port, policy));
}

/** One target's place in guest memory. */
export class DmaMapperHandle {
  readonly #space: GuestAddressSpace;
  readonly #mapper: DmaMapper;

  /** @internal */
  constructor(space: GuestAddressSpace, mapper: DmaMapper) {
    this.#space = space;
    this.#mapper = mapper;
  }

  /** Of the target. */
  get name(): string {
    return this.#mapper.name;
  }

  /**
   * The status of each active sub-mapping and of each mapping in quarantine, in order of address. A mapping in
   * quarantine may overlap a sub-mapping that it blocks.
   */
  status(): MappingStatus[] {
    return this.#mapper.status.all();
  }

  /**
   * Maps again the device memory that the target misses, or that may be revoked without a report. The kernel revokes
   * mappings of a BAR in iommufd without one if another process resets its device or switches it off. DMA to such
   * memory faults meanwhile.
   *
   * @returns for each sub-mapping of device memory its state before, as far as it is known, and its status now
   */
  refresh(): Promise<RefreshedMapping[]> {
    return this.#space.refresh(this.#mapper);
  }

  /**
   * Unmaps everything from the target and removes it. Idempotent.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: those ranges are quarantined, nothing new is mapped to the target, and
   * it stays until {@link DmaMapperClient.targetClosed}
   */
  async remove(): Promise<void> {
    await this.#space.unregister(this.#mapper);
  }

  /** As {@link DmaMapperHandle.remove}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.remove();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'DmaMapperHandle', () => [
      `"${this.name}"`,
      `peerToPeer: '${this.#mapper.peerToPeer}'`,
      this.#mapper.joined ? 'joined' : 'left',
    ]);
  }
}
