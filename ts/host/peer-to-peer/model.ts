/**
 * The peer-to-peer matrix as data: for each ordered pair of devices, whether a request of the one arrives in the other.
 */

/**
 * Whether requests of the initiator arrive in a BAR of the target, once what {@link PeerCell.prerequisites} lists is done:
 *
 * - `yes`: below a common switch or within one device, without the host bridge;
 * - `host-bridge`: up to the root complex and down again, which this one is known to forward;
 * - `no`: there is nothing that could be reached;
 * - `unknown`: they go to a root complex of which nobody says whether it forwards them. It may drop them without a word.
 */
export type Verdict = 'yes' | 'host-bridge' | 'no' | 'unknown';

/** What a reason is about; stable, for programs. */
export type ReasonCode =
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
  | 'direct-regions' // also a note, where the kernel gives the device to VFIO all the same
  | 'not-bound'
  | 'vf-token'
  | 'group-not-viable'
  | 'decode-off'
  | 'asleep'
  | 'not-answering'
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

/** One reason, in words that a person can do something with. */
export interface Reason {
  /** For programs. */
  readonly code: ReasonCode;
  /** For people. */
  readonly text: string;
}

/** One BAR of a target. */
export interface TargetBar {
  /** VFIO's index, 0 to 5. */
  readonly index: number;
  /** Bytes. */
  readonly length: bigint;
  /** Physical address on the host. */
  readonly address: bigint | undefined;
  /** Why it can't be in an IOMMU; `undefined` where it can. */
  readonly problem: string | undefined;
}

/** One ordered pair. */
export interface PeerCell {
  /** Address of the device that does the DMA. */
  readonly initiator: string;
  /** Address of the device whose BAR is to be reached. */
  readonly target: string;
  /** Whether requests arrive, once {@link PeerCell.prerequisites} is done. */
  readonly verdict: Verdict;
  /** Why, in the order of the way that a request takes; never empty. */
  readonly reasons: readonly Reason[];
  /** What is to be done, or undone, before it can be; empty where it can be now. */
  readonly prerequisites: readonly Reason[];
  /** What does not change the verdict and is to be known. */
  readonly notes: readonly Reason[];
  /** BARs of the target. */
  readonly bars: readonly TargetBar[];
}

/** Addresses at which requests of an initiator don't come to the IOMMU: a neighbour takes them first. */
export interface Bypass {
  /** Address of the device that does the DMA. */
  readonly initiator: string;
  /** The neighbour: the function or port that has the addresses. */
  readonly neighbour: string;
  /** The bridge below which both are. */
  readonly below: string;
  /**
   * Whether it is certain. Else ACS can't be read or has egress control, or one device has both functions and need not have
   * a way between them: the requests may come to the IOMMU after all.
   */
  readonly certain: boolean;
  /** The first address. */
  readonly start: bigint;
  /** One past the last address. */
  readonly end: bigint;
}

/** A matrix whose cells and bypasses are made as they are read: all of them may not fit into memory. @internal */
export interface MatrixParts {
  readonly devices: readonly string[];
  readonly cells: Iterable<PeerCell>;
  readonly bypasses: Iterable<Bypass>;
}

/** All pairs of some devices. */
export interface PeerMatrix {
  /** Addresses, in the order of rows (initiators) and columns (targets). */
  readonly devices: readonly string[];
  /** Row by row, without those of a device with itself. */
  readonly cells: readonly PeerCell[];
  /** Where requests of these devices miss the IOMMU. */
  readonly bypasses: readonly Bypass[];
}
