/**
 * What a container's IOMMU can do now.
 */
import type { NativeVfioContainer } from '#native';
import { AddressRange } from '../../address-range.ts';
import type { IommuLimits } from '../../dma/refusal.ts';
import { native } from '../../native-call.ts';

/** @internal */
export interface ContainerLimits extends IommuLimits {
  /** Mappings that can still be made, where the kernel says so. */
  readonly dmaAvailable: number | undefined;
}

/** @internal */
export function limitsOf(container: NativeVfioContainer): ContainerLimits {
  const { pageSizes, iovaRanges, dmaAvail } = native(() => container.info());
  const ranges: AddressRange[] = [];
  for (let at = 0; at + 1 < iovaRanges.length; at += 2) {
    ranges.push(AddressRange.of(iovaRanges[at] ?? 0n, iovaRanges[at + 1] ?? 0n));
  }
  return {
    pageSize: pageSizes & -pageSizes, // the lowest bit that is set
    iovaRanges: ranges,
    dmaAvailable: dmaAvail ?? undefined,
  };
}
