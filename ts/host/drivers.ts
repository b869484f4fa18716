/**
 * Drivers as VFIO sees them: those that hand a device over, those that don't matter, and all others, which hold it.
 */

/** Drivers that do no DMA of their own, which the kernel suffers beside VFIO (`driver_managed_dma` in Linux). */
const HARMLESS: ReadonlySet<string> = new Set(['pcieport', 'pci-stub']);

/** Drivers that give a device to VFIO: vfio-pci and its variants, such as mlx5_vfio_pci. @internal */
export function isVfioDriver(driver: string | undefined): boolean {
  return driver !== undefined && /vfio/.test(driver);
}

/** Whether VFIO does not mind that a group of which it has devices has this one too. @internal */
export function isHarmless(driver: string | undefined): boolean {
  return driver === undefined || isVfioDriver(driver) || HARMLESS.has(driver);
}

/** Why a bridge can't be assigned (Linux, `vfio_pci_core_register_device`), and what to do. @internal */
export function bridgeRefused(address: string): string {
  return `${address} is a bridge, which VFIO does not take: a bridge may stay with its driver, name the devices behind it`;
}

/** Those members of a group that keep it from being assigned: the host's own drivers have them. @internal */
export function blockersOf<T extends { readonly driver: string | undefined }>(members: readonly T[]): T[] {
  return members.filter(({ driver }) => !isHarmless(driver));
}
