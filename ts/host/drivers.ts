/**
 * Classifies drivers for VFIO: VFIO's own, harmless ones, and all others, which block assignment.
 */

/** Drivers without DMA of their own. The kernel allows them beside VFIO (`driver_managed_dma` in Linux). */
const HARMLESS: ReadonlySet<string> = new Set(['pcieport', 'pci-stub']);

/** Whether a driver belongs to VFIO: vfio-pci and its variants, such as mlx5_vfio_pci. @internal */
export function isVfioDriver(driver: string | undefined): boolean {
  return driver !== undefined && /vfio/.test(driver);
}

/** Whether a group stays viable for VFIO while one of its devices has this driver. @internal */
export function keepsGroupViable(driver: string | undefined): boolean {
  return driver === undefined || isVfioDriver(driver) || HARMLESS.has(driver);
}

/** Explains that a bridge cannot be assigned (Linux, `vfio_pci_core_register_device`). @internal */
export function bridgeRefused(address: string): string {
  return `${address} is a bridge, which VFIO does not assign. Leave it with its driver and name the devices behind it`;
}

/** Members of a group that block its assignment: host drivers use them. @internal */
export function blockersOf<T extends { readonly driver: string | undefined }>(members: readonly T[]): T[] {
  return members.filter(({ driver }) => !keepsGroupViable(driver));
}
