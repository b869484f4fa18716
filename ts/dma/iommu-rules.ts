/**
 * The differences between the kernel's two mapping interfaces. The targets, the simulation and their tests use this
 * table.
 */

/** The interface: VFIO type1v2 containers, or address spaces of iommufd. */
export type IommuRulesName = 'type1v2' | 'iommufd';

/** @internal */
export interface IommuRules {
  /** The memory that is mapped by its host virtual address; other memory is mapped as a file. */
  readonly needsVa: true | 'private';
  /** Default limit of mappings: `dma_entry_limit` of Linux `vfio_iommu_type1`. */
  readonly maxMappings: number;
  /** The errno for memory past the end of its file. */
  readonly pastEnd: 'EFAULT' | 'EINVAL';
  /** The errno for a BAR whose device does not decode memory, or is in D3hot. */
  readonly deviceOff: 'EFAULT' | 'ENODEV';
  /**
   * The state of a mapped BAR after its device stops decoding memory, enters D3hot or is reset.
   *
   * - `mapped`: the mapping works again as soon as the device decodes memory. Until then, writes are dropped and reads
   *   return zeros.
   * - `revoked`: it never works again.
   */
  readonly barAfterDeviceOff: 'mapped' | 'revoked';
  /**
   * The errno for an unmap that would cut a mapping. It is `undefined` if the target rejects it without a system call.
   */
  readonly cut: 'EINVAL' | undefined;
}

/**
 * The rules of the IOMMUs of Linux, observed on kernels 6.1, 6.12 and 7.3.
 *
 * Sources: `drivers/vfio/vfio_iommu_type1.c`, `drivers/iommu/iommufd/` and `drivers/vfio/pci/vfio_pci_dmabuf.c`.
 *
 * @internal
 */
export const IOMMU_RULES: Readonly<Record<IommuRulesName, IommuRules>> = {
  type1v2: {
    needsVa: true,
    maxMappings: 65535,
    pastEnd: 'EFAULT',
    deviceOff: 'EFAULT',
    barAfterDeviceOff: 'mapped',
    cut: 'EINVAL',
  },
  iommufd: {
    needsVa: 'private',
    maxMappings: Infinity,
    pastEnd: 'EINVAL',
    deviceOff: 'ENODEV',
    barAfterDeviceOff: 'revoked',
    cut: undefined,
  },
};
