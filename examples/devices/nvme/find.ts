/**
 * Finds an NVMe controller for the example in /sys.
 */
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';

/**
 * Class code and subclass of mass storage, non-volatile memory.
 *
 * PCI Code and ID Assignment Specification, 1.2.
 */
const NVME_CLASS = /^0x0108/;

/**
 * Returns the PCI address of the first NVMe controller that is bound to vfio-pci.
 *
 * @param root the folder of sysfs
 * @throws {Error} if there is none, with the remedy
 */
export function findNvme(root = '/sys'): string {
  const found: string[] = [];
  const folder = join(root, 'bus/pci/devices');
  for (const bdf of existsSync(folder) ? readdirSync(folder).toSorted() : []) {
    if (!NVME_CLASS.test(readFileSync(join(folder, bdf, 'class'), 'utf8'))) continue;
    const driver = driverOf(join(folder, bdf));
    if (driver === 'vfio-pci') return bdf;
    found.push(`${bdf} (${driver === undefined ? 'no driver' : `driver ${driver}`})`);
  }
  throw new Error(
    `no NVMe controller is bound to vfio-pci; ${found.length === 0 ? 'there is none at all' : `there is ${found.join(', ')}`}. ` +
      'The example needs an IOMMU that Linux uses (intel_iommu=on), and a controller whose disk this machine does not use, ' +
      'given to vfio-pci by: sudo npx peerdma bind 0000:01:00.0',
  );
}

function driverOf(device: string): string | undefined {
  try {
    return basename(readlinkSync(join(device, 'driver')));
  } catch {
    return undefined; // without a driver
  }
}
