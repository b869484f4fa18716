/**
 * Finds PCI functions in paths of /sys.
 *
 * `…/devices/pci0000:00/0000:00:14.0/usb1/…` names every function above a device.
 */
import { isPciAddress } from '../address.ts';

/** Returns the addresses of PCI functions in a path. @internal */
export function functionsInPath(path: string | undefined): string[] {
  return path?.split('/').filter(isPciAddress) ?? [];
}
