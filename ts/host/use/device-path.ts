/**
 * Where something in /sys hangs: links lead to `…/devices/pci0000:00/0000:00:14.0/usb1/…`, with every PCI function above it.
 */
import { isPciAddress } from '../address.ts';

/** The PCI functions without which there would be nothing at the path. @internal */
export function functionsInPath(path: string | undefined): string[] {
  return path?.split('/').filter(isPciAddress) ?? [];
}
