/**
 * Whether a virtual function opens only with a VF token: a secret that the users of a physical function and of its
 * virtual functions share, once VFIO has the physical one (Linux, drivers/vfio/pci/vfio_pci_core.c:
 * `vfio_pci_core_match_token_uuid`).
 */
import { isVfioDriver } from './drivers.ts';
import type { Host, PciFunction } from './model.ts';

/** What to do about a VF token. @internal */
export const PASS_THE_TOKEN = 'open(address, { vfToken }) takes it';

/** Why a virtual function opens only with a VF token, and what to do; `undefined` if it opens without. @internal */
export function tokenOfVirtual(
  { functions }: Pick<Host, 'functions'>,
  { address, physicalFunction }: PciFunction,
): string | undefined {
  const physical = physicalFunction === undefined ? undefined : functions.get(physicalFunction);
  if (physical === undefined || !isVfioDriver(physical.driver)) return undefined;
  const bound = `${address} is a virtual function of ${physical.address}, which is bound to ${physical.driver}`;
  return `${bound}: it opens only with the VF token that the user of ${physical.address} has set. ${PASS_THE_TOKEN}`;
}
