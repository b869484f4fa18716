/**
 * Limits on the guest address of a BAR: the address widths and reserved ranges of IOMMUs.
 */
import { hex } from '../../address-range.ts';
import type { HostMachine, PciFunction } from '../model.ts';
import type { PeerCell, PeerReason } from './model.ts';
import { note } from './divergence-text.ts';

/** Notes the BARs that cannot be at their host address in the guest. @internal */
export function placement(
  host: HostMachine,
  initiator: PciFunction,
  bars: PeerCell['bars'],
  addressBits: number | undefined,
): PeerReason[] {
  const reserved = initiator.group === undefined ? undefined : host.groups.get(initiator.group)?.reserved;
  return bars.flatMap(({ index, address, length }) => {
    if (address === undefined) return [];
    const end = address + length;
    const notes: PeerReason[] = [];
    if (addressBits !== undefined && end > 1n << BigInt(addressBits)) {
      notes.push(
        note(
          'host-address-too-high',
          `BAR ${index} is at ${hex(address)} on the host, beyond the ${addressBits} bits of the initiator's IOMMU. Place it lower in the guest`,
        ),
      );
    }
    const hit = Array.isArray(reserved)
      ? reserved.find((range) => range.kind !== 'direct-relaxable' && range.start < end && address < range.end)
      : undefined;
    if (hit !== undefined) {
      notes.push(
        note(
          'host-address-reserved',
          `BAR ${index} at its host address ${hex(address)} overlaps the reserved range ${hex(hit.start)}..${hex(hit.end)} (${hit.kind}). Place it elsewhere in the guest`,
        ),
      );
    }
    return notes;
  });
}

/** Notes the address widths of the IOMMUs of a pair if they are unknown or differ. @internal */
export function widths(host: HostMachine, initiator: PciFunction, target: PciFunction): PeerReason[] {
  if (initiator.group === undefined) return [];
  const [mine, theirs] = [addressBitsOf(host, initiator), addressBitsOf(host, target)];
  if (mine === undefined)
    return [
      note(
        'iommu-width-unknown',
        `/sys does not report how many address bits ${initiator.iommu ?? `the IOMMU of ${initiator.address}`} translates`,
      ),
    ];
  if (theirs === undefined || mine >= theirs) return [];
  return [
    note(
      'iommu-width',
      `the IOMMU of ${initiator.address} has ${mine} address bits, that of ${target.address} has ${theirs}. Place BARs below the lower limit`,
    ),
  ];
}

/** Returns the width of a device's IOVAs in bits; `undefined` if /sys does not report it. @internal */
export function addressBitsOf(host: HostMachine, { iommu }: PciFunction): number | undefined {
  const bits = iommu === undefined ? undefined : host.iommus.get(iommu)?.addressBits;
  return bits === 'unknown' ? undefined : bits;
}
