/**
 * Whether the kernel gives out BARs as dma-bufs. A device would have to be opened to be asked, so this is derived.
 */
import { isVfioDriver } from '../host/drivers.ts';
import type { Unknown } from '../host/model.ts';
import { type KernelFacts, isAtLeast, optionOf } from '../host/system/kernel.ts';

/** The kernel that has `VFIO_DEVICE_FEATURE_DMA_BUF` first. */
const SINCE = [6, 19] as const;

/** @internal */
export interface DmaBufs {
  readonly given: boolean | Unknown;
  readonly evidence: string;
}

/**
 * Where its configuration is not known, a kernel that is new enough may still have been built without (`CONFIG_PCI_P2PDMA`).
 *
 * @param driver of the device; of the variants of vfio-pci not all give theirs out (`get_dmabuf_phys` in Linux)
 * @internal
 */
export function dmaBufsOf(kernel: KernelFacts | Unknown, driver: string | undefined = 'vfio-pci'): DmaBufs {
  if (kernel === 'unknown') return { given: 'unknown', evidence: 'which kernel runs does not show here' };
  const evidence = `derived from Linux ${kernel.release}`;
  if (!isAtLeast(kernel, SINCE)) return { given: false, evidence };
  const option = optionOf(kernel, 'VFIO_PCI_DMABUF');
  if (option === 'n') return { given: false, evidence: `${evidence}, with CONFIG_VFIO_PCI_DMABUF not set` };
  if (option === 'unknown') return { given: 'unknown', evidence: `${evidence}, whose configuration is not known` };
  if (isVfioDriver(driver) && driver !== 'vfio-pci') {
    return { given: 'unknown', evidence: `${evidence}; whether the driver ${driver} does is not known` };
  }
  return { given: true, evidence: `${evidence}, with CONFIG_VFIO_PCI_DMABUF set` };
}
