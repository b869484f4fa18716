/**
 * Whether a function of the model requires a VF token. `vfio/vf-token.ts` has tokens of opens.
 *
 * The token is a secret that the users of a physical function and of its virtual functions share while the physical
 * function is bound to VFIO (Linux, drivers/vfio/pci/vfio_pci_core.c: `vfio_pci_core_match_token_uuid`).
 */
import { isVfioDriver } from './drivers.ts';
import type { HostMachine, PciFunction } from './model.ts';

/** Remedy for a required VF token. @internal */
export const PASS_THE_TOKEN = 'Pass it to open(address, { vfToken })';

/** Explains that a virtual function requires a VF token; `undefined` if it does not. @internal */
export function tokenOfVirtual(
  { functions }: Pick<HostMachine, 'functions'>,
  { address, physicalFunction }: PciFunction,
): string | undefined {
  const physical = physicalFunction === undefined ? undefined : functions.get(physicalFunction);
  if (physical === undefined || !isVfioDriver(physical.driver)) return undefined;
  const bound = `${address} is a virtual function of ${physical.address}, which is bound to ${physical.driver}`;
  return `${bound}: it opens only with the VF token that the user of ${physical.address} has set. ${PASS_THE_TOKEN}`;
}
