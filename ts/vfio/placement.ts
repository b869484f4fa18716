/**
 * Chooses the address space of a device: by the caller's name for it, and by its peer-to-peer domains.
 */
import { type PeerPolicy, haveSameDomains } from '../dma/peer-policy.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import type { ContainerSnapshot } from './backend.ts';

/** The address space that a caller of `open` requires for a device. @internal */
export interface Placement {
  /** The name that the caller gave the address space; `undefined` for one that is chosen automatically. */
  readonly addressSpace: string | undefined;
  readonly policy: PeerPolicy;
}

/** An address space with devices: a VFIO container or an IOAS. @internal */
export interface PlacedSpace {
  /** Name of the target. */
  readonly name: string;
  /** That of its devices. */
  readonly placement: Placement;
  /** Whether it accepts no new device. */
  readonly leaving: boolean;
  /** Whether a device of this IOMMU group is open in it. */
  hasGroup(id: number): boolean;
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function requireSpaceName(addressSpace: string | undefined): string | undefined {
  if (addressSpace === undefined || (typeof addressSpace === 'string' && addressSpace !== '')) return addressSpace;
  const text = `addressSpace is a name of at least one character, not ${valueText(addressSpace)}`;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
}

/**
 * Returns the address spaces that a device may join, in order of their creation.
 *
 * @param group the IOMMU group of the device
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the named address space maps other domains; `ERR_DEVICE_ATTACH` if
 * another address space has a device of the group
 * @internal
 */
export function candidateSpaces<S extends PlacedSpace>(
  spaces: Iterable<S>,
  { bdf, group }: { readonly bdf: string; readonly group: number },
  wanted: Placement,
): S[] {
  const open = [...spaces].filter(({ leaving }) => !leaving);
  const { addressSpace } = wanted;
  const named = open.find(({ placement }) => addressSpace !== undefined && placement.addressSpace === addressSpace);
  if (named !== undefined && !haveSameDomains(named.placement.policy, wanted.policy)) {
    const domains = [...named.placement.policy.domains].map((domain) => JSON.stringify(domain)).join(', ');
    const mapped = domains === '' ? 'no peer-to-peer domain' : `the peer-to-peer domains ${domains}`;
    const reason = `the address space ${spaceText(named)} maps ${mapped}`;
    const remedy = `Pass [${domains}] as peerToPeerDomains`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${bdf}: open failed: ${reason}. ${remedy}.`, {
      bdf,
      target: named.name,
    });
  }
  const fitting = open.filter(({ placement }) => isSame(placement, wanted));
  const other = open.find((space) => space.hasGroup(group) && !fitting.includes(space));
  if (other === undefined) return fitting;
  const reason = `a device of its IOMMU group ${group} is in the address space ${spaceText(other)}`;
  const remedy = 'Open all devices of a group with one addressSpace and the same peerToPeerDomains';
  throw new PeerDmaError('ERR_DEVICE_ATTACH', `${bdf}: open failed: ${reason}. ${remedy}.`, {
    bdf,
    target: other.name,
  });
}

/** The placement as plain data. @internal */
export function placementSnapshot({
  addressSpace,
  policy,
}: Placement): Pick<ContainerSnapshot, 'addressSpace' | 'peerToPeerDomains'> {
  const peerToPeerDomains = [...policy.domains];
  return addressSpace === undefined ? { peerToPeerDomains } : { addressSpace, peerToPeerDomains };
}

/** The error when the kernel does not attach a device to the address space that was named. @internal */
export function refusedByNamed(bdf: string, space: PlacedSpace, cause: PeerDmaError): PeerDmaError {
  const { errno, syscall } = cause;
  const why = 'the IOMMUs differ, or memory is mapped at addresses that are reserved for the device';
  const reason = `the kernel does not attach it to the address space ${spaceText(space)}: ${why} (${errno})`;
  const remedy = 'Open it with another addressSpace, or without one';
  return new PeerDmaError('ERR_DEVICE_ATTACH', `${bdf}: open failed: ${reason}. ${remedy}.`, {
    errno,
    syscall,
    bdf,
    target: space.name,
    cause,
  });
}

function isSame(a: Placement, b: Placement): boolean {
  return a.addressSpace === b.addressSpace && haveSameDomains(a.policy, b.policy);
}

function spaceText({ name, placement }: PlacedSpace): string {
  return placement.addressSpace === undefined ? name : `${JSON.stringify(placement.addressSpace)} (${name})`;
}
