/**
 * One pair: the way that a request takes, and what becomes of it.
 *
 * A device that is assigned sends requests with guest addresses: IOVAs, which only its IOMMU translates. Bridges and switches
 * route by address and know nothing of that. So:
 *
 * 1. A request goes up to the root complex, whether ACS redirects it or not, since a switch has no port for a guest address.
 *    There the IOMMU turns it into the BAR's host address, and the root complex sends it down again, through the same root
 *    port or another one, if it does that at all ({@link forwarding}).
 * 2. The exception that is wanted: with ATS a device asks the IOMMU first and sends translated requests. A switch takes those
 *    straight across, unless ACS redirects them there (ACS Direct Translated P2P lets them pass even then).
 * 3. The exception that nobody wants: a guest address that happens to be a host address of a neighbour below the same switch,
 *    without ACS to redirect it. The switch takes it across and the IOMMU never sees it ({@link bypassesOf}). For a BAR that
 *    is at its host address in the guest this is a short cut; for guest RAM at such an address it is corruption.
 *
 * Without an IOMMU devices have host addresses, and the switch's way is the way. That is nothing VFIO can do, and still what
 * drivers of the host do: the verdict is about that then, and the missing IOMMU is among what is needed.
 */
import { hex } from '../../address-range.ts';
import type { Host, PciFunction } from '../model.ts';
import { type Forwarding, forwarding } from './host-bridges.ts';
import type { PeerCell, Reason, Verdict } from './model.ts';
import { type Parting, partingOf } from './parting.ts';
import { needsOf } from './readiness.ts';
import { targetBars } from './target-bars.ts';

/** @internal */
export function cellOf(host: Host, initiator: PciFunction, target: PciFunction): PeerCell {
  const addressBits = addressBitsOf(host, initiator);
  const bars = targetBars(target, addressBits);
  const reachable = bars.filter(({ problem }) => problem === undefined);
  const needs = needsOf(host, initiator, target);
  const base = { initiator: initiator.address, target: target.address, needs, bars };
  if (reachable.length === 0) {
    const list = bars.map(({ index, problem }) => `BAR ${index}: ${problem}`).join('; ');
    const text = list === '' ? `${target.address} has no BAR` : `${target.address} has no BAR to reach (${list})`;
    return { ...base, verdict: 'no', reasons: [{ code: 'no-target-bar', text }], notes: [] };
  }
  const parting = partingOf(host, initiator, target);
  const way =
    initiator.group === undefined
      ? byBusAddress(host, parting, initiator, target)
      : translated(host, parting, initiator, target);
  const notes = [
    ...(initiator.group !== undefined && initiator.group === target.group
      ? [
          note(
            'same-group',
            `both are in group ${initiator.group}: the IOMMU does not tell them apart, and they go into one container`,
          ),
        ]
      : []),
    ...way.notes,
    ...placement(host, initiator, reachable, addressBits),
    ...widths(host, initiator, target),
  ];
  return { ...base, verdict: way.verdict, reasons: way.reasons, notes };
}

interface Way {
  readonly verdict: Verdict;
  readonly reasons: readonly Reason[];
  readonly notes: readonly Reason[];
}

function translated(host: Host, parting: Parting, initiator: PciFunction, target: PciFunction): Way {
  const ats = atsOf(host, initiator, parting);
  if (ats.direct) {
    const where = `${ats.text}; ${placeOf(parting)} passes translated requests straight across`;
    return { verdict: 'yes', reasons: [note('direct-ats', where)], notes: bypassNotes(parting, target) };
  }
  const through = forwarding(host, initiator.rootBus, target.rootBus);
  const reasons = [iommuFirst(parting, initiator, target), through.reason];
  const notes = [...ats.notes, ...bypassNotes(parting, target)];
  return { verdict: verdictOf(through), reasons, notes };
}

function byBusAddress(host: Host, parting: Parting, initiator: PciFunction, target: PciFunction): Way {
  const place = placeOf(parting);
  const through = forwarding(host, initiator.rootBus, target.rootBus);
  if (parting.kind === 'root-complex') {
    return { verdict: verdictOf(through), reasons: [apart(initiator, target), through.reason], notes: [] };
  }
  switch (parting.untranslated) {
    case 'direct': {
      const text = `no IOMMU translates: ${place} passes requests with host addresses straight across`;
      return { verdict: 'yes', reasons: [note('direct-bus-address', text)], notes: [] };
    }
    case 'redirect': {
      const redirect = note(
        'acs-redirect',
        `ACS of ${parting.initiatorSide.address} redirects requests up to the host bridge`,
      );
      return { verdict: verdictOf(through), reasons: [redirect, through.reason], notes: [] };
    }
    case 'egress': {
      const egress = note(
        'acs-egress',
        `ACS of ${parting.initiatorSide.address} has egress control on: its vector may refuse requests`,
      );
      return { verdict: 'unknown', reasons: [egress], notes: [] };
    }
    case 'possible': {
      const inside = note(
        'inside-device',
        `${place} may pass requests between its functions, or hand them up to the host bridge`,
      );
      return { verdict: verdictOf(through), reasons: [inside, through.reason], notes: [] };
    }
    case 'unknown': {
      const hidden = note(
        'acs-unknown',
        `${acsUnread(parting)}, so they pass ${place} straight or go up to the host bridge`,
      );
      return { verdict: verdictOf(through), reasons: [hidden, through.reason], notes: [] };
    }
  }
}

function verdictOf({ forwards }: Forwarding): Verdict {
  return forwards === true ? 'host-bridge' : forwards === false ? 'no' : 'unknown';
}

/** Why a request with a guest address is at the root complex. */
function iommuFirst(parting: Parting, initiator: PciFunction, target: PciFunction): Reason {
  const { common, initiatorSide } = parting;
  switch (parting.kind) {
    case 'root-complex':
      return apart(initiator, target);
    case 'conventional':
      return note(
        'conventional-bus',
        `on one conventional bus below ${common?.address}, which hands guest addresses up to the IOMMU`,
      );
    default: {
      const up = `${placeOf(parting)} can't route guest addresses: requests go up to the IOMMU and back down`;
      if (parting.untranslated !== 'redirect') return note('iommu-first', up);
      return note(
        'acs-redirect',
        `${placeOf(parting)}, where ACS of ${initiatorSide.address} redirects all requests up to the IOMMU; then back down`,
      );
    }
  }
}

function apart(initiator: PciFunction, target: PciFunction): Reason {
  if (initiator.rootBus !== target.rootBus) {
    const text = `below different host bridges, ${initiator.rootBus} and ${target.rootBus}`;
    return note('different-host-bridges', text);
  }
  return note(
    'different-root-ports',
    `no bridge in common: from one port of host bridge ${initiator.rootBus} to another`,
  );
}

function placeOf({ kind, common, initiatorSide, targetSide }: Parting): string {
  if (kind === 'switch') return `the switch below ${common?.address}`;
  if (kind === 'conventional') return `the conventional bus below ${common?.address}`;
  const one = initiatorSide.address.slice(0, -2) === targetSide.address.slice(0, -2);
  return one ? `the device ${initiatorSide.address.slice(0, -2)}` : `what is below ${common?.address}`;
}

interface Ats {
  readonly direct: boolean;
  readonly text: string;
  readonly notes: readonly Reason[];
}

/** Whether translated requests may take the short way. Only what is on now counts. */
function atsOf(host: Host, { address, ats, iommu, parent }: PciFunction, parting: Parting): Ats {
  const nothing = { direct: false, text: '', notes: [] };
  if (ats === 'none' || parting.kind === 'root-complex' || parting.kind === 'conventional') return nothing;
  if (ats === 'unknown') {
    const text = `whether ${address} has translations of its own (ATS) can't be read (root can)`;
    return { ...nothing, notes: [note('ats-unknown', text)] };
  }
  const port = parent === undefined ? undefined : host.functions.get(parent);
  const text = `${address} has translations of its own (ATS is on)`;
  if (port !== undefined && typeof port.acs === 'object' && port.acs.on.includes('TransBlk')) {
    const blocked = `ACS of ${port.address} blocks translated requests (TransBlk)`;
    return { ...nothing, notes: [note('ats-blocked', ats.enabled ? `${text}, but ${blocked}` : blocked)] };
  }
  const open = parting.translated === 'direct';
  if (ats.enabled) {
    if (open) return { direct: true, text, notes: [] };
    const kept = `${text}, but ${parting.translated === 'unknown' ? acsUnread(parting) : `ACS of ${parting.initiatorSide.address} redirects translated requests too (DirectTrans is off)`}`;
    return { ...nothing, notes: [note('acs-redirect', kept)] };
  }
  const tlb = iommu === undefined ? 'unknown' : (host.iommus.get(iommu)?.deviceTlb ?? 'unknown');
  if (tlb === false || !open) return nothing;
  return {
    ...nothing,
    notes: [
      note(
        'ats-not-on',
        `${address} has ATS, which is off now: with it translated requests would pass ${placeOf(parting)} straight`,
      ),
    ],
  };
}

function acsUnread({ initiatorSide }: Parting): string {
  return `ACS of ${initiatorSide.address} can't be read (root can)`;
}

/** The short way that nobody asked for; the addresses are in the matrix, for each initiator. */
function bypassNotes({ kind, untranslated, initiatorSide }: Parting, target: PciFunction): Reason[] {
  if (kind === 'root-complex' || untranslated === 'redirect') return [];
  const conditions = {
    direct: '',
    possible: ', if the device has ways between its functions',
    unknown: `, if ACS of ${initiatorSide.address} lets them`,
    egress: `, if the egress vector of ${initiatorSide.address} lets them`,
  };
  const condition = conditions[untranslated];
  return [
    note(
      'bypass',
      `guest addresses that are host addresses of ${target.address} reach it past the IOMMU${condition}: a short cut for its BARs there, corruption for RAM`,
    ),
  ];
}

/** Whether a BAR could have the address in the guest that it has on the host. */
function placement(
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

function widths(host: Host, initiator: PciFunction, target: PciFunction): Reason[] {
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

function addressBitsOf(host: Host, { iommu }: PciFunction): number | undefined {
  const bits = iommu === undefined ? undefined : host.iommus.get(iommu)?.addressBits;
  return bits === 'unknown' ? undefined : bits;
}

function note(code: Reason['code'], text: string): Reason {
  return { code, text };
}
