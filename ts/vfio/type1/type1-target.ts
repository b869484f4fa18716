/**
 * A VFIO container of type1v2 as a target of guest memory.
 */
import type { NativeVfioContainer } from '#native';
import type { IommuLimits } from '../../dma/refusal.ts';
import { native } from '../../native-call.ts';
import { IommuSpace, rangesOf } from '../iommu-space.ts';

/** @internal */
export interface ContainerLimits extends IommuLimits {
  /** Mappings that can still be made, where the kernel says so. */
  readonly dmaAvailable: number | undefined;
}

/**
 * Maps guest memory by its host virtual address into the IOMMU domains of one container. Dirty pages are what the
 * kernel can't know not to be written: all that is mapped, for a device that is not mediated. So what is unmapped and
 * mapped again counts as written in any case.
 *
 * @internal
 */
export class Type1Target extends IommuSpace<ContainerLimits> {
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
