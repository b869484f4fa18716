/**
 * A VFIO container of type1v2 as a DMA target.
 */
import type { NativeVfioContainer } from '#native';
import type { IommuLimits } from '../../dma/refusal.ts';
import { native } from '../../native-call.ts';
import { KernelTarget, rangesOf } from '../../dma/kernel-target.ts';

/** @internal */
export interface ContainerLimits extends IommuLimits {
  /** Number of mappings that can still be made, if the kernel reports it. */
  readonly dmaAvailable: number | undefined;
}

/**
 * Maps guest memory by its host virtual address into the IOMMU domains of one container.
 *
 * The kernel reports all mapped pages of a device that is not mediated as dirty, so the dirty pages of an unmapped
 * mapping need not be read: after it is mapped again, all of its pages count as written.
 *
 * @internal
 */
export class Type1Target extends KernelTarget<ContainerLimits> {
  readonly needsVa = true;

  constructor(container: NativeVfioContainer, name: string) {
    super(container, name, () => limitsOf(container));
  }

  protected get dirtyPageSize(): bigint {
    return this.limits().pageSize;
  }
}

function limitsOf(container: NativeVfioContainer): ContainerLimits {
  const { pageSizes, iovaRanges, dmaAvail } = native(() => container.info());
  return {
    pageSize: pageSizes & -pageSizes, // the lowest bit that is set
    iovaRanges: rangesOf(iovaRanges),
    dmaAvailable: dmaAvail ?? undefined,
  };
}
