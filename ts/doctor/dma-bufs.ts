/**
 * Derives whether the kernel exports BARs as dma-bufs. Only an open device reports it.
 */
import { isVfioDriver } from '../host/drivers.ts';
import type { UnknownFact } from '../host/model.ts';
import { DMA_BUFS_SINCE, type KernelFacts, isAtLeast, optionOf } from '../host/system/kernel.ts';

/** @internal */
export interface DmaBufs {
  readonly given: boolean | UnknownFact;
  readonly evidence: string;
}

/**
 * Derives it from the kernel's version and configuration. A new kernel can lack the option (`CONFIG_PCI_P2PDMA`).
 *
 * @param driver driver of the device; not all variants of vfio-pci export BARs (`get_dmabuf_phys` in Linux)
 * @internal
 */
export function dmaBufsOf(kernel: KernelFacts | UnknownFact, driver: string | undefined = 'vfio-pci'): DmaBufs {
  if (kernel === 'unknown') return { given: 'unknown', evidence: 'the kernel is unknown here' };
  const evidence = `derived from Linux ${kernel.release}`;
  if (!isAtLeast(kernel, DMA_BUFS_SINCE)) return { given: false, evidence };
  const option = optionOf(kernel, 'VFIO_PCI_DMABUF');
  if (option === 'n') return { given: false, evidence: `${evidence}, with CONFIG_VFIO_PCI_DMABUF not set` };
  if (option === 'unknown') return { given: 'unknown', evidence: `${evidence}, whose configuration is unknown` };
  if (isVfioDriver(driver) && driver !== 'vfio-pci') {
    return { given: 'unknown', evidence: `${evidence}; whether the driver ${driver} exports BARs is unknown` };
  }
  return { given: true, evidence: `${evidence}, with CONFIG_VFIO_PCI_DMABUF set` };
}
