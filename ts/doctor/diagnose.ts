/**
 * Says whether a machine is able to assign devices, and what is in the way.
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
import { type DeviceDiagnosis, type Diagnosis, type Finding, aboutDevice, summary, worst } from './finding.ts';
import { hugePagesFinding } from './machine/huge-pages.ts';
import { interruptFindings, iommuFinding } from './machine/iommu.ts';
import { mappingsFinding, memlockFinding } from './machine/limits.ts';
import { kernelFinding, vfioFindings } from './machine/vfio.ts';
import { Lookups } from './lookups.ts';
import { diagnoseByOpening } from './diagnose-by-opening.ts';

/** What {@link diagnose} looks at. */
export interface DiagnoseOptions {
  /**
   * PCI addresses, `0000:01:00.0` or `01:00.0`. Default: all that could be assigned, those that the host uses among them;
   * that it uses them is no more than a `warning` then.
   */
  readonly devices?: readonly string[];
  /** Bytes of RAM that a guest is to have; limits are held against it. */
  readonly ram?: bigint;
  /** Another machine's /sys, copied. What is not in it (kernel, limits, permissions) is unknown then. Default: this one's. */
  readonly sysfs?: string;
  /**
   * Opens each device that VFIO has and nobody else uses, and closes it again: what else is derived is asked then. It resets
   * the device. Default: no device is touched.
   */
  readonly open?: boolean;
}

/**
 * Examines this machine, this process and PCI devices: whether `VfioContainerManager` could open them, and what is to
 * be done if not. Reads files, and opens /dev/vfio/vfio and /dev/iommu for a moment.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` (an address, a size, or a folder that does not exist),
 *   `ERR_DEVICE_NOT_FOUND`; with `open`, `ERR_ADDRESS_SPACE_LIMIT`
 */
export async function diagnose(options: DiagnoseOptions = {}): Promise<Diagnosis> {
  const { devices, ram, sysfs, open } = readOptions(options, ['devices', 'ram', 'sysfs', 'open']);
  const texts = devices === undefined ? undefined : readArray(devices, 'devices');
  if (open === true && sysfs !== undefined) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'devices of another machine can not be opened');
  }
  const facts = gatherFacts(sysfs, ram);
  const { host } = facts;
  // A machine without PCI is a finding of its own: no device is named as missing then.
  const wanted = texts?.map((text) => (host.functions.size === 0 ? pciAddress(text) : functionAt(host, text).address));
  const diagnosis = diagnosisOf(facts, wanted);
  return open === true ? await diagnoseByOpening(facts, diagnosis) : diagnosis;
}

/** @param wanted addresses; `undefined` for all that could be assigned @internal */
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

function machineFindings(facts: Facts): Finding[] {
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

function pciFindings({ host: { functions, root } }: Facts): Finding[] {
  if (functions.size > 0) return [];
  const says =
    'no PCI device shows here: the machine has none, or the kernel is without PCI (CONFIG_PCI, pci=off), or a container hides its /sys. Run the doctor on the host';
  return [{ id: 'pci', state: 'blocked', says, evidence: `${root}/bus/pci/devices is empty or not there` }];
}

function sysfsFindings({ host: { findings, root } }: Facts): Finding[] {
  if (findings.length === 0) return [];
  const [files, make] = findings.length === 1 ? ['1 file', 'makes'] : [`${findings.length} files`, 'make'];
  const evidence = listed(findings, findings.length, ({ path, problem }) => `${root}/${path} ${problem}`);
  return [{ id: 'sysfs', state: 'warning', says: `${files} of ${root} ${make} no sense`, evidence }];
}
