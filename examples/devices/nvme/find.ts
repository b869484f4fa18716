/**
 * Which NVMe controller there is to use, by what the kernel says in /sys.
 */
import { existsSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { basename, join } from 'node:path';

/** Mass storage, non-volatile memory: class code and subclass (PCI Code and ID Assignment Specification, 1.2). */
const NVME_CLASS = /^0x0108/;

/**
 * The PCI address of the first NVMe controller that is bound to vfio-pci.
 *
 * @param root where sysfs is
 * @throws {Error} there is none; it says what is needed
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
      'What it takes: an IOMMU that Linux uses (intel_iommu=on), and a controller whose disk nothing on this machine uses, ' +
      'given to vfio-pci by: sudo npx peerdma bind 0000:01:00.0',
  );
}

function driverOf(device: string): string | undefined {
  try {
    return basename(readlinkSync(join(device, 'driver')));
  } catch {
    return undefined; // bound to none
  }
}
