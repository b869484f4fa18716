/**
 * Limits on the guest address of a BAR: the width of IOMMUs, and the ranges that they reserve.
 */
import { hex } from '../../address-range.ts';
import type { Host, PciFunction } from '../model.ts';
import type { PeerCell, Reason } from './model.ts';
import { note } from './divergence-text.ts';

/** Whether a BAR could have the address in the guest that it has on the host. @internal */
export function placement(
  host: Host,
  initiator: PciFunction,
  bars: PeerCell['bars'],
  addressBits: number | undefined,
): Reason[] {
  const reserved = initiator.group === undefined ? undefined : host.groups.get(initiator.group)?.reserved;
  return bars.flatMap(({ index, address, length }) => {
    if (address === undefined) return [];
    const end = address + length;
    const notes: Reason[] = [];
    if (addressBits !== undefined && end > 1n << BigInt(addressBits)) {
      notes.push(
        note(
          'host-address-too-high',
          `BAR ${index} is at ${hex(address)} on the host, beyond the ${addressBits} bits of the initiator's IOMMU: the guest needs it lower`,
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
          `BAR ${index} at its host address ${hex(address)} would be on ${hex(hit.start)}..${hex(hit.end)}, which is reserved (${hit.kind}): the guest needs it elsewhere`,
        ),
      );
    }
    return notes;
  });
}

/** @internal */
export function widths(host: Host, initiator: PciFunction, target: PciFunction): Reason[] {
  if (initiator.group === undefined) return [];
  const [mine, theirs] = [addressBitsOf(host, initiator), addressBitsOf(host, target)];
  if (mine === undefined)
    return [
      note(
        'iommu-width-unknown',
        `how many bits of addresses ${initiator.iommu ?? `the IOMMU of ${initiator.address}`} translates, /sys does not tell`,
      ),
    ];
  if (theirs === undefined || mine >= theirs) return [];
  return [
    note(
      'iommu-width',
      `the IOMMU of ${initiator.address} has ${mine} bits of addresses, that of ${target.address} ${theirs}: BARs have to be below the lower limit`,
    ),
  ];
}

/** Bits of the IOVAs of a device; `undefined` where /sys does not tell. @internal */
export function addressBitsOf(host: Host, { iommu }: PciFunction): number | undefined {
  const bits = iommu === undefined ? undefined : host.iommus.get(iommu)?.addressBits;
  return bits === 'unknown' ? undefined : bits;
}
