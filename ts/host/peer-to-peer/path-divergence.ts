/**
 * Finds where the paths of two devices diverge, and how a request between them is routed there.
 */
import type { AcsControl } from '../config-facts.ts';
import type { PciFunction } from '../model.ts';
import type { Paths } from './paths.ts';

/** How a request is routed where the paths diverge; see {@link PathDivergence.untranslated}. @internal */
export type Decision = 'direct' | 'possible' | 'redirect' | 'egress' | 'unknown';

/** @internal */
export interface PathDivergence {
  /**
   * - `root-complex`: the devices have no bridge in common;
   * - `switch`: they are below different ports of one switch;
   * - `device`: they are functions of one device, or below one port;
   * - `conventional`: they are on one conventional bus, or below bridges on it.
   */
  readonly kind: 'root-complex' | 'switch' | 'device' | 'conventional';
  /** The lowest bridge above both; `undefined` at the root complex. */
  readonly common: PciFunction | undefined;
  /** The port or function on the initiator's side: its ACS decides. */
  readonly initiatorSide: PciFunction;
  readonly targetSide: PciFunction;
  /**
   * How an untranslated request with an address of the target is routed:
   *
   * - `direct`: to the target;
   * - `possible`: perhaps to the target. A device with several functions and without ACS does not report whether it
   *   has paths between them (PCI Express Base Specification, 6.12.1.2);
   * - `redirect`: up, to the IOMMU;
   * - `egress`: a vector decides for each port whether the request is redirected or blocked;
   * - `unknown`: ACS could not be read.
   */
  readonly untranslated: Decision;
  /** How a translated request (ATS) is routed. */
  readonly translated: Decision;
}

/** @internal */
export function findDivergence(paths: Paths, initiator: PciFunction, target: PciFunction): PathDivergence {
  const mine = paths.pathOf(initiator);
  const theirs = paths.pathOf(target);
  let shared = 0; // number of shared bridges, from the root bus down
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
      // A bridge of unknown type with several bridges on the bus below it can only be a switch.
      return 'device';
  }
}

/**
 * Decides by ACS of the port, or of the function of a multi-function device. The rules are in the PCI Express Base
 * Specification, 6.12.
 */
function divergenceDecisions(
  kind: PathDivergence['kind'],
  { acs }: PciFunction,
): Pick<PathDivergence, 'untranslated' | 'translated'> {
  // On a conventional bus every device receives every address.
  if (kind === 'conventional') return { untranslated: 'direct', translated: 'direct' };
  if (acs === 'none') {
    // Switches route between their ports (1.4).
    const decision = kind === 'switch' ? 'direct' : 'possible';
    return { untranslated: decision, translated: decision };
  }
  if (acs === 'unknown') return { untranslated: 'unknown', translated: 'unknown' };
  const on = (control: AcsControl): boolean => acs.on.includes(control);
  // A function without the control redirects always (Linux, drivers/pci/pci.c: `pci_acs_flags_enabled`).
  const redirects = on('ReqRedir') || !acs.has.includes('ReqRedir');
  const untranslated = on('EgressCtrl') ? 'egress' : redirects ? 'redirect' : 'direct';
  return { untranslated, translated: on('DirectTrans') ? 'direct' : untranslated };
}
