/**
 * Whether translated requests of a device (ATS) reach a target without passing the root complex.
 */
import type { HostMachine, PciFunction } from '../model.ts';
import type { PeerReason } from './model.ts';
import type { PathDivergence } from './path-divergence.ts';
import { describeUnreadAcs, note, describeDivergence, describeRedirect } from './divergence-text.ts';

/** @internal */
export interface Ats {
  readonly direct: boolean;
  readonly text: string;
  readonly notes: readonly PeerReason[];
}

/** Evaluates ATS of an initiator. Only controls that are on now count. @internal */
export function atsOf(
  host: HostMachine,
  { address, ats, iommu, parent }: PciFunction,
  divergence: PathDivergence,
): Ats {
  const nothing = { direct: false, text: '', notes: [] };
  if (ats === 'none' || divergence.kind === 'root-complex' || divergence.kind === 'conventional') return nothing;
  if (ats === 'unknown') {
    const text = `ATS of ${address} cannot be read; root can read it`;
    return { ...nothing, notes: [note('ats-unknown', text)] };
  }
  const port = parent === undefined ? undefined : host.functions.get(parent);
  const text = `${address} sends translated requests (ATS is on)`;
  if (port !== undefined && typeof port.acs === 'object' && port.acs.on.includes('TransBlk')) {
    const blocked = `ACS of ${port.address} blocks translated requests (TransBlk)`;
    return { ...nothing, notes: [note('ats-blocked', ats.enabled ? `${text}, but ${blocked}` : blocked)] };
  }
  const open = divergence.translated === 'direct';
  if (ats.enabled) {
    if (open) return { direct: true, text, notes: [] };
    return { ...nothing, notes: [keptFromCrossing(text, divergence)] };
  }
  const tlb = iommu === undefined ? 'unknown' : (host.iommus.get(iommu)?.deviceTlb ?? 'unknown');
  if (tlb === false || !open) return nothing;
  return {
    ...nothing,
    notes: [
      note(
        'ats-not-on',
        `${address} has ATS, which is off: if it were on, translated requests would cross ${describeDivergence(divergence)} directly`,
      ),
    ],
  };
}

/** Explains why translated requests may go up to the root complex although ATS is on. */
function keptFromCrossing(text: string, divergence: PathDivergence): PeerReason {
  const { address } = divergence.initiatorSide;
  switch (divergence.translated) {
    case 'possible':
      return note(
        'inside-device',
        `${text}, but whether ${describeDivergence(divergence)} has paths between its functions is unknown`,
      );
    case 'egress':
      return note('acs-egress', `${text}, but ACS of ${address} has egress control on: its vector may block them`);
    case 'unknown':
      return note('acs-unknown', `${text}, but ${describeUnreadAcs(divergence)}`);
    default:
      return note(
        'acs-redirect',
        `${text}, but ${describeRedirect(divergence, 'translated requests')} too (DirectTrans is off)`,
      );
  }
}
