/**
 * The peer-to-peer matrix as plain data.
 */

/**
 * Whether requests of the initiator reach a BAR of the target. All {@link PeerCell.prerequisites} must be met.
 *
 * - `yes`: below a common switch or within one device, without the host bridge;
 * - `host-bridge`: through the root complex, which is known to forward them;
 * - `no`: the target has no BAR that can be mapped;
 * - `unknown`: through a root complex that is not known to forward them. It may drop them silently.
 */
export type PeerVerdict = 'yes' | 'host-bridge' | 'no' | 'unknown';

/** Code of a reason. Codes are stable, texts are not. */
export type PeerReasonCode =
  // Reasons of the verdict
  | 'direct-bus-address'
  | 'direct-ats'
  | 'iommu-first'
  | 'acs-redirect'
  | 'acs-egress'
  | 'acs-unknown'
  | 'inside-device'
  | 'different-root-ports'
  | 'different-host-bridges'
  | 'conventional-bus'
  | 'host-bridge-known'
  | 'host-bridge-one-only'
  | 'host-bridge-not-known'
  | 'no-target-bar'
  // Prerequisites
  | 'no-iommu'
  | 'direct-regions' // also a note, if the kernel gives the device to VFIO anyway
  | 'not-bound'
  | 'vf-token'
  | 'group-not-viable'
  | 'decode-off'
  | 'low-power-state'
  | 'not-responding'
  // Notes
  | 'same-group'
  | 'ats-not-on'
  | 'ats-unknown'
  | 'ats-blocked'
  | 'bypass'
  | 'iommu-width'
  | 'iommu-width-unknown'
  | 'host-address-too-high'
  | 'host-address-reserved';

/** One reason, for programs and for people. */
export interface PeerReason {
  /** Stable code for programs. */
  readonly code: PeerReasonCode;
  /** Text for people. */
  readonly text: string;
}

/** One BAR of a target. */
export interface PeerTargetBar {
  /** VFIO's region index, 0 to 5. */
  readonly index: number;
  /** Bytes. */
  readonly length: bigint;
  /** Physical address on the host; `undefined` if none is assigned. */
  readonly address: bigint | undefined;
  /** Why an IOMMU cannot map the BAR; `undefined` if it can. */
  readonly problem: string | undefined;
}

/** One ordered pair of devices. */
export interface PeerCell {
  /** Address of the device that does the DMA. */
  readonly initiator: string;
  /** Address of the device whose BARs are the target. */
  readonly target: string;
  /** Whether requests arrive, once all {@link PeerCell.prerequisites} are met. */
  readonly verdict: PeerVerdict;
  /** Reasons for the verdict, in the order of the path; never empty. */
  readonly reasons: readonly PeerReason[];
  /** Conditions to meet before requests can arrive; empty if all are met. */
  readonly prerequisites: readonly PeerReason[];
  /** Facts that do not change the verdict. */
  readonly notes: readonly PeerReason[];
  /** BARs of the target. */
  readonly bars: readonly PeerTargetBar[];
}

/** Addresses at which requests of an initiator bypass the IOMMU, since a neighbour decodes them. */
export interface IommuBypass {
  /** Address of the device that does the DMA. */
  readonly initiator: string;
  /** Address of the function or port that decodes or forwards the addresses. */
  readonly neighbour: string;
  /** Address of the bridge above both. */
  readonly below: string;
  /**
   * Whether the requests certainly bypass the IOMMU. It is uncertain if ACS cannot be read or has egress control on, or
   * if the functions of one device may have no path between them.
   */
  readonly certain: boolean;
  /** The first address. */
  readonly start: bigint;
  /** One past the last address. */
  readonly end: bigint;
}

/** A matrix whose cells and bypasses are computed as they are read. All may not fit into memory. @internal */
export interface MatrixParts {
  readonly devices: readonly string[];
  readonly cells: Iterable<PeerCell>;
  readonly bypasses: Iterable<IommuBypass>;
}

/** All ordered pairs of the chosen devices. */
export interface PeerMatrix {
  /** Addresses, in the order of rows (initiators) and columns (targets). */
  readonly devices: readonly string[];
  /** Row by row, without pairs of a device with itself. */
  readonly cells: readonly PeerCell[];
  /** Addresses at which requests of these devices bypass the IOMMU. */
  readonly bypasses: readonly IommuBypass[];
}
