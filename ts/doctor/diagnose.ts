/**
 * Diagnoses whether a machine can assign devices, and what prevents it.
 */
import { readArray, readOptions } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { isVfioDriver } from '../host/drivers.ts';
import { listed } from '../host/listed.ts';
import type { PciFunction } from '../host/model.ts';
import { assignable } from '../host/peer-to-peer/matrix.ts';
import { pciAddress } from '../host/address.ts';
import { functionAt } from '../host/read-host.ts';
import { assignmentFindings } from './device/assignment.ts';
import { backendFinding } from './device/backend.ts';
import { barFindings } from './device/bars.ts';
import { resetFinding } from './device/resets.ts';
import { type Facts, gatherFacts } from './facts.ts';
import { type DeviceDiagnosis, type Diagnosis, type DoctorFinding, aboutDevice, summary, worst } from './finding.ts';
import { hugePagesFinding } from './machine/huge-pages.ts';
import { interruptFindings, iommuFinding } from './machine/iommu.ts';
import { mappingsFinding, memlockFinding } from './machine/limits.ts';
import { kernelFinding, vfioFindings } from './machine/vfio.ts';
import { Lookups } from './lookups.ts';

/** Options of {@link diagnose}. */
export interface DiagnoseOptions {
  /**
   * PCI addresses, `0000:01:00.0` or `01:00.0`. Default: all devices that could be assigned, including those that the
   * host uses; that the host uses them is then only a `warning`.
   */
  readonly devices?: readonly string[];
  /** RAM of the guest in bytes, to compare limits with. Default: limits are only reported. */
  readonly ram?: bigint;
  /** A copy of another machine's /sys; kernel, limits and permissions are then unknown. Default: this machine. */
  readonly sysfs?: string;
  /**
   * Whether to open each device that is bound to VFIO and free, and close it again. An open device reports facts that
   * are derived otherwise. Opening resets the device. Default: `false`.
   */
  readonly open?: boolean;
}

/**
 * Diagnoses whether `VfioContainerManager` can open devices of this machine, and what to do if not.
 *
 * Reads files, and opens /dev/vfio/vfio and /dev/iommu for a moment.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for an invalid address, size or folder, `ERR_DEVICE_NOT_FOUND` if a
 *   device does not exist, `ERR_ADDRESS_SPACE_LIMIT` with `open`
 */
export async function diagnose(options: DiagnoseOptions = {}): Promise<Diagnosis> {
  const { devices, ram, sysfs, open } = readOptions(options, ['devices', 'ram', 'sysfs', 'open']);
  const texts = devices === undefined ? undefined : readArray(devices, 'devices');
  if (open === true && sysfs !== undefined) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'devices of another machine cannot be opened. Omit open or sysfs');
  }
  const facts = gatherFacts(sysfs, ram);
  const { host } = facts;
  // A machine without PCI is a finding, so named devices are not reported as missing.
  const wanted = texts?.map((text) => (host.functions.size === 0 ? pciAddress(text) : functionAt(host, text).address));
  const diagnosis = diagnosisOf(facts, wanted);
  if (open !== true) return diagnosis;
  // Only this option needs VFIO and guest memory, most of the code of the package.
  const { diagnoseByOpening } = await import('./diagnose-by-opening.ts');
  return diagnoseByOpening(facts, diagnosis);
}

/** @param wanted addresses; `undefined` for all devices that could be assigned @internal */
export function diagnosisOf(facts: Facts, wanted: readonly string[] | undefined): Diagnosis {
  const { host } = facts;
  const lookups = new Lookups(facts);
  const addresses = [...new Set(wanted ?? assignable(host))];
  const devices = addresses.flatMap((address) => host.functions.get(address) ?? []);
  return summary(
    machineFindings(facts),
    devices.map((device) => deviceDiagnosis(facts, lookups, device, wanted !== undefined)),
  );
}

function machineFindings(facts: Facts): DoctorFinding[] {
  return [
    kernelFinding(facts),
    ...pciFindings(facts),
    iommuFinding(facts),
    ...interruptFindings(facts),
    ...vfioFindings(facts),
    memlockFinding(facts),
    mappingsFinding(facts),
    hugePagesFinding(facts),
    ...sysfsFindings(facts),
  ];
}

function deviceDiagnosis(facts: Facts, lookups: Lookups, device: PciFunction, asked: boolean): DeviceDiagnosis {
  const assignment = assignmentFindings(facts, lookups, device, asked);
  const { driver, group } = device;
  const ready = isVfioDriver(driver) && worst(assignment.map(({ state }) => state)) !== 'blocked';
  return aboutDevice(device, [
    ...assignment,
    ...(ready && group !== undefined ? [backendFinding(facts, device, group)] : []),
    resetFinding(facts, device),
    ...barFindings(facts, device),
  ]);
}

function pciFindings({ host: { functions, root } }: Facts): DoctorFinding[] {
  if (functions.size > 0) return [];
  const text =
    '/sys lists no PCI device: the machine has none, the kernel has no PCI (CONFIG_PCI, pci=off), or a container hides them. Run the doctor on the host';
  return [{ id: 'pci', state: 'blocked', text, evidence: `${root}/bus/pci/devices is empty or missing` }];
}

function sysfsFindings({ host: { findings, root } }: Facts): DoctorFinding[] {
  if (findings.length === 0) return [];
  const [files, are] = findings.length === 1 ? ['1 file', 'is'] : [`${findings.length} files`, 'are'];
  const evidence = listed(findings, findings.length, ({ path, problem }) => `${root}/${path} ${problem}`);
  return [{ id: 'sysfs', state: 'warning', text: `${files} of ${root} ${are} invalid`, evidence }];
}
