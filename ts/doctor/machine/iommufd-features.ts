/**
 * Reports features that iommufd requires: device files, mapping of files, and dma-bufs of BARs.
 *
 * If one is missing, type1 works without it.
 */
import { isVfioDriver } from '../../host/drivers.ts';
import { isAtLeast, optionOf } from '../../host/system/kernel.ts';
import { NO_DMA_BUFS, mapsNoFiles, noDeviceFile } from '../../vfio/opening-errors.ts';
import { dmaBufsOf } from '../dma-bufs.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';

/** First kernel with `CONFIG_VFIO_DEVICE_CDEV`. */
const DEVICE_FILES_SINCE = [6, 6] as const;

/** @param iommufd result of the probe @internal */
export function featureFindings(facts: Facts, iommufd: { readonly mapsFiles: boolean }): DoctorFinding[] {
  return [mapFile(iommufd), deviceFiles(facts), dmaBuf(facts)];
}

function mapFile({ mapsFiles }: { readonly mapsFiles: boolean }): DoctorFinding {
  const [id, evidence] = ['map-file', 'ioctl(IOMMU_IOAS_MAP_FILE) of /dev/iommu'] as const;
  if (mapsFiles) return { id, state: 'ok', text: 'iommufd maps RAM by its file', evidence };
  return { id, state: 'warning', text: mapsNoFiles().message, evidence };
}

function deviceFiles({ host, system: { kernel } }: Facts): DoctorFinding {
  const id = 'device-files';
  const bound = [...host.functions.values()].filter(({ driver }) => isVfioDriver(driver));
  const having = bound.find(({ vfioFile }) => vfioFile !== undefined);
  const ok = { id, state: 'ok', text: 'devices have their own device files' } as const;
  if (having !== undefined) return { ...ok, evidence: `${having.address} is /dev/vfio/devices/${having.vfioFile}` };
  const missing = { id, state: 'warning', text: noDeviceFile('a device').message } as const;
  if (bound.length > 0) return { ...missing, evidence: `${bound[0]?.address} has no vfio-dev in ${host.root}` };
  const release = kernel === 'unknown' ? '' : `derived from Linux ${kernel.release}`;
  const option = optionOf(kernel, 'VFIO_DEVICE_CDEV');
  if (kernel === 'unknown' || (isAtLeast(kernel, DEVICE_FILES_SINCE) && option === 'unknown')) {
    const text = 'whether devices have their own device files is unknown until one is bound to vfio-pci';
    return { id, state: 'unknown', text, evidence: release || 'no device is bound to VFIO' };
  }
  const configured = option === 'unknown' ? '' : `, with CONFIG_VFIO_DEVICE_CDEV ${option === 'y' ? 'set' : 'not set'}`;
  const given = isAtLeast(kernel, DEVICE_FILES_SINCE) && option === 'y';
  return { ...(given ? ok : missing), evidence: `${release}${configured}` };
}

function dmaBuf({ system: { kernel } }: Facts): DoctorFinding {
  const id = 'dma-buf';
  const { given, evidence } = dmaBufsOf(kernel);
  if (given === true) return { id, state: 'ok', text: 'BARs can be exported as dma-bufs', evidence };
  if (given === false) return { id, state: 'warning', text: NO_DMA_BUFS, evidence };
  const text = 'BARs can be exported as dma-bufs if the kernel was built with it. Open a device to find out (--open)';
  return { id, state: 'unknown', text, evidence };
}
