/**
 * Where the ways of two devices part, and what happens there to a request of the one that has an address of the other.
 */
import type { AcsControl } from '../config-facts.ts';
import type { PciFunction } from '../model.ts';
import type { Paths } from './paths.ts';

/** What becomes of a request where ways part; {@link PathDivergence.untranslated} explains. @internal */
export type Decision = 'direct' | 'possible' | 'redirect' | 'egress' | 'unknown';

/** @internal */
export interface PathDivergence {
  /**
   * - `root-complex`: they have no bridge in common;
   * - `switch`: below different ports of one switch;
   * - `device`: they are functions of one device, or below one port;
   * - `conventional`: on one conventional bus, or below bridges on it.
   */
  readonly kind: 'root-complex' | 'switch' | 'device' | 'conventional';
  /** The bridge below which they part; `undefined` at the root complex. */
  readonly common: PciFunction | undefined;
  /** The port or function on the initiator's side: its ACS decides. */
  readonly initiatorSide: PciFunction;
  readonly targetSide: PciFunction;
  /**
   * What is done there with an untranslated request whose address is the neighbour's:
   *
   * - `direct`: it goes to the neighbour;
   * - `possible`: a device with several functions may hand it from one to the other, or not: without ACS it does not say
   *   whether it has such ways (PCI Express Base Specification, 6.12.1.2);
   * - `redirect`: it goes up, to the IOMMU;
   * - `egress`: a vector decides, port by port, between that and refusing it;
   * - `unknown`: ACS could not be read.
   */
  readonly untranslated: Decision;
  /** The same of a request that the device has had translated (ATS). */
  readonly translated: Decision;
}

/** @internal */
export function findDivergence(paths: Paths, initiator: PciFunction, target: PciFunction): PathDivergence {
  const mine = paths.pathOf(initiator);
  const theirs = paths.pathOf(target);
  let shared = 0; // bridges, from the root bus down
  while (shared < mine.length && mine.at(-1 - shared) === theirs.at(-1 - shared)) shared++;
  const common = shared === 0 ? undefined : mine.at(-shared);
  const initiatorSide = mine[mine.length - shared - 1] ?? initiator;
  const targetSide = theirs[theirs.length - shared - 1] ?? target;
  const kind = divergenceKind(common);
  return { kind, common, initiatorSide, targetSide, ...divergenceDecisions(kind, initiatorSide) };
}

function divergenceKind(common: PciFunction | undefined): PathDivergence['kind'] {
  switch (common?.portType) {
    case undefined:
      return 'root-complex';
    case 'switch-upstream':
      return 'switch';
    case 'pcie-to-pci-bridge':
    case 'conventional':
      return 'conventional';
    default:
      // A bridge of which nothing can be read has a bus below it with several bridges on it only if it is a switch.
      return 'device';
  }
}

/** By ACS of the port, or of the function where one device has several (PCI Express Base Specification, 6.12). */
function divergenceDecisions(
  kind: PathDivergence['kind'],
  { acs }: PciFunction,
): Pick<PathDivergence, 'untranslated' | 'translated'> {
  // On a conventional bus everybody sees every address.
  if (kind === 'conventional') return { untranslated: 'direct', translated: 'direct' };
  if (acs === 'none') {
    // Switches have to route between their ports (1.4).
    const decision = kind === 'switch' ? 'direct' : 'possible';
    return { untranslated: decision, translated: decision };
  }
  if (acs === 'unknown') return { untranslated: 'unknown', translated: 'unknown' };
  const on = (control: AcsControl): boolean => acs.on.includes(control);
  // What a function doesn't have, it can't be kept from: it does it always (Linux, drivers/pci/pci.c: pci_acs_flags_enabled).
  const redirects = on('ReqRedir') || !acs.has.includes('ReqRedir');
  const untranslated = on('EgressCtrl') ? 'egress' : redirects ? 'redirect' : 'direct';
  return { untranslated, translated: on('DirectTrans') ? 'direct' : untranslated };
}
