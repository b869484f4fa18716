/**
 * Evaluates one pair: the path of a request and the verdict.
 *
 * An assigned device sends requests with guest addresses (IOVAs), which only its IOMMU translates. Bridges and switches
 * route by address without a translation. So:
 *
 * 1. A request goes up to the root complex, with or without ACS redirection, since a switch has no port for a guest
 *    address. The IOMMU translates it to the BAR's host address, and the root complex sends it down again through the
 *    same or another root port, if it forwards such requests ({@link HostBridges.forwarding}).
 * 2. Exception: a device with ATS requests translations from the IOMMU and sends translated requests. A switch routes
 *    those directly, unless ACS redirects them. With ACS Direct Translated P2P they are never redirected.
 * 3. Exception: a guest address equals a host address of a neighbour below the same switch, and ACS does not redirect
 *    it. The switch routes the request directly, so it bypasses the IOMMU ({@link bypassesOf}). If the guest has the
 *    BAR at its host address, this is a shortcut. If the guest has RAM there, it is corruption.
 *
 * Without an IOMMU, devices use host addresses and switches route them. VFIO cannot assign such devices, but drivers of
 * the host do peer-to-peer this way: the verdict describes it, and the missing IOMMU is one of the prerequisites.
 */
import type { HostMachine, PciFunction } from '../model.ts';
import { atsOf } from './ats.ts';
import type { Forwarding, HostBridges } from './host-bridges.ts';
import type { PeerCell, PeerReason, PeerVerdict } from './model.ts';
import { type PathDivergence, findDivergence } from './path-divergence.ts';
import { describeUnreadAcs, note, describeDivergence, describeRedirect } from './divergence-text.ts';
import type { Paths } from './paths.ts';
import { addressBitsOf, placement, widths } from './placement.ts';
import type { Readiness } from './readiness.ts';
import type { TargetBars } from './target-bars.ts';

/** State that all cells of a matrix share. @internal */
export interface CellContext {
  readonly host: HostMachine;
  readonly paths: Paths;
  readonly readiness: Readiness;
  readonly hostBridges: HostBridges;
  readonly targetBars: TargetBars;
}

/** @internal */
export function cellOf(context: CellContext, initiator: PciFunction, target: PciFunction): PeerCell {
  const { host, paths, readiness } = context;
  const addressBits = addressBitsOf(host, initiator);
  const bars = context.targetBars.of(target, addressBits);
  const reachable = bars.filter(({ problem }) => problem === undefined);
  const prerequisites = readiness.prerequisitesOf(initiator, target);
  const base = { initiator: initiator.address, target: target.address, prerequisites, bars };
  if (reachable.length === 0) {
    const list = bars.map(({ index, problem }) => `BAR ${index}: ${problem}`).join('; ');
    const text = list === '' ? `${target.address} has no BAR` : `${target.address} has no BAR to reach (${list})`;
    return { ...base, verdict: 'no', reasons: [{ code: 'no-target-bar', text }], notes: [] };
  }
  const divergence = findDivergence(paths, initiator, target);
  const way = findPath(context, divergence, initiator, target);
  const notes = [
    ...(initiator.group !== undefined && initiator.group === target.group
      ? [
          note(
            'same-group',
            `both are in group ${initiator.group}: the IOMMU does not isolate them from each other, and they share a container`,
          ),
        ]
      : []),
    ...way.notes,
    ...readiness.notesOf(initiator, target),
    ...placement(host, initiator, reachable, addressBits),
    ...widths(host, initiator, target),
  ];
  return { ...base, verdict: way.verdict, reasons: way.reasons, notes };
}

interface PathVerdict {
  readonly verdict: PeerVerdict;
  readonly reasons: readonly PeerReason[];
  readonly notes: readonly PeerReason[];
}

function findPath(
  context: CellContext,
  divergence: PathDivergence,
  initiator: PciFunction,
  target: PciFunction,
): PathVerdict {
  const way = initiator.group === undefined ? byBusAddress : translated;
  const found = way(context, divergence, initiator, target);
  if (found.verdict !== 'yes') return found;
  // Switches and host bridges of a virtual machine belong to the hypervisor: VFIO assigns neither.
  const decided = context.hostBridges.hypervisorDecides(initiator, target);
  return decided === undefined ? found : { ...found, verdict: 'unknown', reasons: [...found.reasons, decided] };
}

function translated(
  context: CellContext,
  divergence: PathDivergence,
  initiator: PciFunction,
  target: PciFunction,
): PathVerdict {
  const ats = atsOf(context.host, initiator, divergence);
  if (ats.direct) {
    const text = `${ats.text}; ${describeDivergence(divergence)} routes translated requests directly`;
    return { verdict: 'yes', reasons: [note('direct-ats', text)], notes: bypassNotes(divergence, target) };
  }
  const through = context.hostBridges.forwarding(initiator, target);
  const reasons = [iommuFirst(divergence, initiator, target), through.reason];
  const notes = [...ats.notes, ...bypassNotes(divergence, target)];
  return { verdict: verdictOf(through), reasons, notes };
}

function byBusAddress(
  context: CellContext,
  divergence: PathDivergence,
  initiator: PciFunction,
  target: PciFunction,
): PathVerdict {
  const place = describeDivergence(divergence);
  const through = context.hostBridges.forwarding(initiator, target);
  if (divergence.kind === 'root-complex') {
    return { verdict: verdictOf(through), reasons: [apart(initiator, target), through.reason], notes: [] };
  }
  switch (divergence.untranslated) {
    case 'direct': {
      const text = `no IOMMU translates: ${place} routes requests with host addresses directly`;
      return { verdict: 'yes', reasons: [note('direct-bus-address', text)], notes: [] };
    }
    case 'redirect': {
      const redirect = note('acs-redirect', `${describeRedirect(divergence, 'requests')} up to the host bridge`);
      return { verdict: verdictOf(through), reasons: [redirect, through.reason], notes: [] };
    }
    case 'egress': {
      const egress = note(
        'acs-egress',
        `ACS of ${divergence.initiatorSide.address} has egress control on: its vector may block requests`,
      );
      return { verdict: 'unknown', reasons: [egress], notes: [] };
    }
    case 'possible': {
      const inside = note(
        'inside-device',
        `${place} may route requests between its functions, or send them up to the host bridge`,
      );
      return { verdict: verdictOf(through), reasons: [inside, through.reason], notes: [] };
    }
    case 'unknown': {
      const hidden = note(
        'acs-unknown',
        `${describeUnreadAcs(divergence)}, so requests cross ${place} directly or go up to the host bridge`,
      );
      return { verdict: verdictOf(through), reasons: [hidden, through.reason], notes: [] };
    }
  }
}

function verdictOf({ forwards }: Forwarding): PeerVerdict {
  return forwards === true ? 'host-bridge' : 'unknown';
}

/** Explains why a request with a guest address goes to the root complex. */
function iommuFirst(divergence: PathDivergence, initiator: PciFunction, target: PciFunction): PeerReason {
  const { common } = divergence;
  switch (divergence.kind) {
    case 'root-complex':
      return apart(initiator, target);
    case 'conventional':
      return note(
        'conventional-bus',
        `on one conventional bus below ${common?.address}, which sends guest addresses up to the IOMMU`,
      );
    default: {
      const up = `${describeDivergence(divergence)} cannot route guest addresses: requests go up to the IOMMU and back down`;
      if (divergence.untranslated !== 'redirect') return note('iommu-first', up);
      return note(
        'acs-redirect',
        `${describeDivergence(divergence)}, where ${describeRedirect(divergence, 'all requests')} up to the IOMMU; then back down`,
      );
    }
  }
}

function apart(initiator: PciFunction, target: PciFunction): PeerReason {
  if (initiator.rootBus !== target.rootBus) {
    const text = `below different host bridges, ${initiator.rootBus} and ${target.rootBus}`;
    return note('different-host-bridges', text);
  }
  return note(
    'different-root-ports',
    `no bridge in common: from one port of host bridge ${initiator.rootBus} to another`,
  );
}

/** The note about bypasses; {@link bypassesOf} lists their addresses for each initiator. */
function bypassNotes({ kind, untranslated, initiatorSide }: PathDivergence, target: PciFunction): PeerReason[] {
  if (kind === 'root-complex' || untranslated === 'redirect') return [];
  const conditions = {
    direct: '',
    possible: ', if the device has paths between its functions',
    unknown: `, if ACS of ${initiatorSide.address} lets them`,
    egress: `, if the egress vector of ${initiatorSide.address} lets them`,
  };
  const condition = conditions[untranslated];
  return [
    note(
      'bypass',
      `guest addresses that are host addresses of ${target.address} bypass the IOMMU${condition}: a shortcut for its BARs there, corruption for RAM`,
    ),
  ];
}
