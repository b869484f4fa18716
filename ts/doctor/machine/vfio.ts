/**
 * Reports the kernel, whether VFIO is loaded, and which back ends this user can open.
 */
import { PeerDmaError } from '../../errors.ts';
import { isVfioDriver } from '../../host/drivers.ts';
import { isAtLeast, optionOf } from '../../host/system/kernel.ts';
import { INSTALL_KERNEL } from '../commands.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';
import type { Probes } from '../probe.ts';
import { featureFindings } from './iommufd-features.ts';

/** First kernel that reports the IOVAs that can be mapped; see README.md. */
const OLDEST = [5, 4] as const;
const NO_CORE: ReadonlySet<string> = new Set(['ERR_NATIVE_CORE_MISSING', 'ERR_UNSUPPORTED_PLATFORM']);

/** @internal */
export function kernelFinding({ system: { kernel } }: Facts): DoctorFinding {
  const id = 'kernel';
  if (kernel === 'unknown') {
    return {
      id,
      state: 'unknown',
      text: 'the kernel is unknown here',
      evidence: 'no /proc/sys/kernel/osrelease',
    };
  }
  const evidence = '/proc/sys/kernel/osrelease';
  if (isAtLeast(kernel, OLDEST)) return { id, state: 'ok', text: `the kernel is Linux ${kernel.release}`, evidence };
  const text = `Linux ${kernel.release} is older than 5.4, the first that this package supports`;
  return { id, state: 'warning', text, evidence };
}

/** Reports VFIO, and its back ends if VFIO is loaded. @internal */
export function vfioFindings(facts: Facts): DoctorFinding[] {
  const vfio = vfioFinding(facts);
  const { probes } = facts;
  if (probes === 'unknown') return [vfio, notProbed('type1', '/dev/vfio/vfio'), notProbed('iommufd', '/dev/iommu')];
  if (probes.type1 instanceof PeerDmaError && NO_CORE.has(probes.type1.code)) return [coreFinding(probes.type1), vfio];
  return vfio.state === 'ok' ? [vfio, ...backendFindings(facts, probes)] : [vfio];
}

function notProbed(id: 'type1' | 'iommufd', path: string): DoctorFinding {
  return { id, state: 'unknown', text: `whether ${path} can be opened is unknown here`, evidence: 'no /dev' };
}

function coreFinding({ code, message }: PeerDmaError): DoctorFinding {
  const fix = code === 'ERR_NATIVE_CORE_MISSING' ? 'npm install --include=optional peerdma' : undefined;
  return { id: 'native-core', state: 'blocked', text: message, evidence: `${code} of its import`, code, fix };
}

function vfioFinding({ host, system, probes }: Facts): DoctorFinding {
  const id = 'vfio';
  const { kernel, vfioPci } = system;
  const bound = [...host.functions.values()].find(({ driver }) => isVfioDriver(driver));
  const path = `${host.root}/bus/pci/drivers`;
  if (vfioPci === true || bound !== undefined) {
    const evidence = vfioPci === true ? `${path}/vfio-pci` : `${bound?.address} has the driver ${bound?.driver}`;
    return { id, state: 'ok', text: 'VFIO is loaded', evidence };
  }
  if (vfioPci === 'unknown') {
    return { id, state: 'unknown', text: 'whether VFIO is loaded is unknown here', evidence: `no ${path}` };
  }
  if (kernel !== 'unknown' && optionOf(kernel, 'VFIO_PCI', 'vfio_pci') === 'n') {
    const where =
      kernel.config === 'unknown' ? `/lib/modules/${kernel.release} has no vfio-pci` : 'CONFIG_VFIO_PCI is not set';
    return {
      id,
      state: 'blocked',
      text: `this kernel has no VFIO. Boot a kernel with CONFIG_VFIO_PCI, such as Debian's`,
      evidence: `no ${path}/vfio-pci; Linux ${kernel.release}: ${where}`,
      fix: INSTALL_KERNEL,
    };
  }
  const refused = probes !== 'unknown' && probes.type1 instanceof PeerDmaError ? probes.type1 : undefined;
  const text =
    refused?.code === 'ERR_VFIO_UNAVAILABLE'
      ? refused.message
      : 'the driver vfio-pci is not loaded. Load it with "modprobe vfio-pci"';
  return { id, state: 'blocked', text, evidence: `no ${path}/vfio-pci`, fix: 'sudo modprobe vfio-pci' };
}

/** One back end is enough: if the other cannot be opened, it is a warning. */
function backendFindings(facts: Facts, { type1, iommufd }: Probes): DoctorFinding[] {
  const neither = type1 !== 'opened' && iommufd instanceof PeerDmaError;
  const refused = (id: 'type1' | 'iommufd', error: PeerDmaError, fix: string | undefined): DoctorFinding => ({
    id,
    state: neither ? 'blocked' : 'warning',
    text: error.message,
    evidence: evidenceOf(facts, id, error),
    code: neither ? error.code : undefined,
    fix,
  });
  const found: DoctorFinding[] = [
    type1 === 'opened'
      ? { id: 'type1', state: 'ok', text: 'type1 containers can be opened', evidence: 'open(/dev/vfio/vfio)' }
      : refused('type1', type1, type1.code === 'ERR_PERMISSION' ? 'sudo chmod a+rw /dev/vfio/vfio' : undefined),
  ];
  if (iommufd instanceof PeerDmaError) return [...found, refused('iommufd', iommufd, iommufdRemedy(facts, iommufd))];
  found.push({ id: 'iommufd', state: 'ok', text: 'iommufd can be opened', evidence: 'open(/dev/iommu)' });
  return [...found, ...featureFindings(facts, iommufd)];
}

function iommufdRemedy({ system }: Facts, { code }: PeerDmaError): string | undefined {
  if (code === 'ERR_PERMISSION') return 'sudo chown "$USER" /dev/iommu';
  return optionOf(system.kernel, 'IOMMUFD', 'iommufd') === 'm' ? 'sudo modprobe iommufd' : undefined;
}

function evidenceOf({ system: { kernel } }: Facts, id: 'type1' | 'iommufd', error: PeerDmaError): string {
  const asked = `${error.syscall ?? 'open'}: ${error.errno ?? error.code}`;
  if (id === 'type1' || kernel === 'unknown' || optionOf(kernel, 'IOMMUFD', 'iommufd') !== 'n') return asked;
  return `${asked}; Linux ${kernel.release} was built without CONFIG_IOMMUFD`;
}
