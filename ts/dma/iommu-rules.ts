/**
 * Where the kernel's two ways of mapping differ: one row each, for the targets, for the simulation, and for the tests that
 * hold both to it.
 */
/** Whose rules: VFIO type1v2 containers, or address spaces of iommufd. */
export type IommuRulesName = 'type1v2' | 'iommufd';

/** @internal */
export interface IommuRules {
  /** What is mapped by its place in this process; the rest is mapped as the file that it is. */
  readonly needsVa: true | 'private';
  /** How many mappings there can be: `dma_entry_limit` of Linux `vfio_iommu_type1`. */
  readonly maxMappings: number;
  /** The answer for memory past the end of its file. */
  readonly pastEnd: 'EFAULT' | 'EINVAL';
  /** The answer for a BAR whose device does not decode memory, or is in D3hot. */
  readonly deviceOff: 'EFAULT' | 'ENODEV';
  /**
   * What becomes of a mapped BAR when that happens to its device, or the device is reset: it stays, and works again as soon as
   * the device answers (what is written meanwhile goes nowhere, reads give zeros); or it is void for ever.
   */
  readonly whenDeviceGoesOff: 'stays' | 'void';
  /** The answer to an unmap that would cut a mapping; `undefined` where the target itself refuses, without asking. */
  readonly cut: 'EINVAL' | undefined;
}

/**
 * Linux `drivers/vfio/vfio_iommu_type1.c`, `drivers/iommu/iommufd/` and `drivers/vfio/pci/vfio_pci_dmabuf.c`, and what
 * kernels 6.1, 6.12 and 7.3 were seen to do.
 *
 * @internal
 */
export const IOMMU_RULES: Readonly<Record<IommuRulesName, IommuRules>> = {
  type1v2: {
    needsVa: true,
    maxMappings: 65535,
    pastEnd: 'EFAULT',
    deviceOff: 'EFAULT',
    whenDeviceGoesOff: 'stays',
    cut: 'EINVAL',
  },
  iommufd: {
    needsVa: 'private',
    maxMappings: Infinity,
    pastEnd: 'EINVAL',
    deviceOff: 'ENODEV',
    whenDeviceGoesOff: 'void',
    cut: undefined,
  },
};
