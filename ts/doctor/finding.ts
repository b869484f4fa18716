/**
 * Findings of the doctor as plain data.
 */
import type { ErrorCode } from '../errors.ts';
import type { PciFunction, UnknownFact } from '../host/model.ts';

/**
 * State of a finding.
 *
 * - `ok`: no problem;
 * - `warning`: a problem that does not prevent assignment;
 * - `blocked`: no device, or not this one, can be opened, or not with that RAM;
 * - `unknown`: the files that were read do not reveal it.
 */
export type DoctorFindingState = 'ok' | 'warning' | 'blocked' | 'unknown';

/** Subject of a finding. Ids are stable, texts are not. */
export type DoctorFindingId =
  // The machine
  | 'native-core'
  | 'kernel'
  | 'pci'
  | 'iommu'
  | 'interrupt-remapping'
  | 'vfio'
  | 'type1'
  | 'iommufd'
  | 'map-file'
  | 'device-files'
  | 'dma-buf'
  | 'memlock'
  | 'mappings'
  | 'huge-pages'
  | 'sysfs'
  // A device
  | 'responds'
  | 'group'
  | 'direct-regions'
  | 'driver'
  | 'group-viable'
  | 'free'
  | 'vf-token'
  | 'backend'
  | 'reset'
  | 'bar';

/** Result of one check. */
export interface DoctorFinding {
  /** Subject of the finding. */
  readonly id: DoctorFindingId;
  /** Result of the check. */
  readonly state: DoctorFindingState;
  /** Text for people: the result, and a remedy if it is not `ok`. */
  readonly text: string;
  /** Files and values that show it. */
  readonly evidence: string;
  /** Shell command that fixes the problem; missing if none does. */
  readonly fix?: string | undefined;
  /** Error code that `VfioContainerManager.open` would throw; only for some `blocked` findings. */
  readonly code?: ErrorCode | undefined;
  /** Abilities of the BAR, for findings with the id `bar`. */
  readonly bar?: BarDiagnosis;
}

/** Abilities of a BAR. */
export interface BarDiagnosis {
  /** VFIO's region index, 0 to 5. */
  readonly index: number;
  /** Bytes. */
  readonly length: bigint;
  /** Whether it can be mapped into guest memory and IOMMUs. */
  readonly mappable: boolean;
  /** Whether it can be exported as a dma-buf, which iommufd requires. */
  readonly exportable: boolean | UnknownFact;
  /**
   * The largest page size that its host address allows, in bytes: 4 KiB, 2 MiB or 1 GiB. It is 0 if the BAR cannot be
   * mapped.
   */
  readonly pageSize: bigint;
}

/** The findings about one device. */
export interface DeviceDiagnosis {
  /** PCI address, `0000:01:00.0`. */
  readonly address: string;
  /** Facts of the device from /sys. */
  readonly pci: PciFunction;
  /** Worst state of its findings. A device can be opened if neither it nor the machine is `blocked`. */
  readonly state: DoctorFindingState;
  /** Findings in the order of the checks, without checks that depend on a failed one. */
  readonly findings: readonly DoctorFinding[];
}

/** Result of {@link diagnose}. */
export interface Diagnosis {
  /** The worst of all findings. */
  readonly state: DoctorFindingState;
  /** Findings about the machine and this process, without checks that depend on a failed one. */
  readonly machine: readonly DoctorFinding[];
  /** Diagnoses of devices, in the order of the options or of addresses. */
  readonly devices: readonly DeviceDiagnosis[];
}

/** @internal */
export function summary(machine: readonly DoctorFinding[], devices: readonly DeviceDiagnosis[]): Diagnosis {
  return { state: worst([...machine, ...devices].map(({ state }) => state)), machine, devices };
}

/** @internal */
export function aboutDevice(pci: PciFunction, findings: readonly DoctorFinding[]): DeviceDiagnosis {
  return { address: pci.address, pci, state: worst(findings.map(({ state }) => state)), findings };
}

const BY_SEVERITY: readonly DoctorFindingState[] = ['blocked', 'warning', 'unknown', 'ok'];

/** @internal */
export function worst(states: readonly DoctorFindingState[]): DoctorFindingState {
  return BY_SEVERITY.find((state) => states.includes(state)) ?? 'ok';
}
