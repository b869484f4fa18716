/**
 * What the doctor finds, as plain data.
 */
import type { ErrorCode } from '../errors.ts';
import type { PciFunction, Unknown } from '../host/index.ts';

/**
 * How something stands: `ok`; `warning`, which keeps nothing from working; `blocked`, with which no device (or not this
 * one) can be opened, or not be given the RAM; `unknown`, which what was read does not tell.
 */
export type FindingState = 'ok' | 'warning' | 'blocked' | 'unknown';

/** What a finding is about; stable, for programs. */
export type FindingId =
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
  | 'answers'
  | 'group'
  | 'direct-regions'
  | 'driver'
  | 'group-viable'
  | 'free'
  | 'vf-token'
  | 'backend'
  | 'reset'
  | 'bar';

/** One thing that was looked at. */
export interface Finding {
  /** What it is about. */
  readonly id: FindingId;
  /** How that stands. */
  readonly state: FindingState;
  /** For people: how it stands, and what to do if it is not `ok`. */
  readonly says: string;
  /** What that was seen by: files, and what they say. */
  readonly evidence: string;
  /** One command line that mends it, to be pasted into a shell; not there where none does. */
  readonly fix?: string | undefined;
  /** Of what is blocked: the error of `VfioContainerManager.open`, where that is what would say so. */
  readonly code?: ErrorCode | undefined;
  /** Of a BAR. */
  readonly bar?: BarVerdict;
}

/** What can be done with a BAR. */
export interface BarVerdict {
  /** VFIO's index, 0 to 5. */
  readonly index: number;
  /** Bytes. */
  readonly length: bigint;
  /** Whether it can be in guest memory, and in IOMMUs, as memory. */
  readonly mappable: boolean;
  /** Whether it can be had as a dma-buf, as iommufd takes it. */
  readonly exportable: boolean | Unknown;
  /**
   * The largest page that its place on the host lets it be mapped in, in bytes: 4 KiB, 2 MiB or 1 GiB. 0 where it can't be
   * mapped.
   */
  readonly pageSize: bigint;
}

/** The findings about one device. */
export interface DeviceDiagnosis {
  /** `0000:01:00.0`. */
  readonly address: string;
  /** What /sys says of it. */
  readonly pci: PciFunction;
  /** The worst of its findings: a device can be opened where neither this nor the machine is `blocked`. */
  readonly state: FindingState;
  /** In the order in which a device is looked at. What can't be asked until something else is mended is not there. */
  readonly findings: readonly Finding[];
}

/** All that was found. */
export interface Diagnosis {
  /** The worst of all findings. */
  readonly state: FindingState;
  /** About the machine and this process. What can't be asked until something else is mended is not there. */
  readonly machine: readonly Finding[];
  /** In the order in which they were named, or of their addresses. */
  readonly devices: readonly DeviceDiagnosis[];
}

/** @internal */
export function summary(machine: readonly Finding[], devices: readonly DeviceDiagnosis[]): Diagnosis {
  return { state: worst([...machine, ...devices].map(({ state }) => state)), machine, devices };
}

/** @internal */
export function aboutDevice(pci: PciFunction, findings: readonly Finding[]): DeviceDiagnosis {
  return { address: pci.address, pci, state: worst(findings.map(({ state }) => state)), findings };
}

const BY_SEVERITY: readonly FindingState[] = ['blocked', 'warning', 'unknown', 'ok'];

/** @internal */
export function worst(states: readonly FindingState[]): FindingState {
  return BY_SEVERITY.find((state) => states.includes(state)) ?? 'ok';
}
