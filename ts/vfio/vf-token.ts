/**
 * VF tokens: the UUID that the user of a physical function shares with the users of its virtual functions (Linux
 * `vfio_pci_core_match_token_uuid`).
 */
import { PeerDmaError } from '../errors.ts';
import { isVfioDriver } from '../host/drivers.ts';
import type { PciDevice } from './sysfs.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** A device to open. @internal */
export interface RequestedDevice extends PciDevice {
  /** The VF token, which is a secret. */
  readonly vfToken?: string | undefined;
}

/** The message does not repeat the token. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function requireVfToken(vfToken: string): string {
  if (typeof vfToken === 'string' && UUID.test(vfToken)) return vfToken;
  const text = 'vfToken is a UUID, such as bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3 (uuidgen makes one)';
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
}

/** A device's address with its token, in the form that the native core and the kernel accept. @internal */
export function nameWithToken({ bdf, vfToken }: RequestedDevice): string {
  return vfToken === undefined ? bdf : `${bdf} vf_token=${vfToken}`;
}

/** What /sys tells about the token of a device. @internal */
export interface TokenFacts {
  /** Whether a token was given. */
  readonly given: boolean;
  /** The physical function of a virtual function. */
  readonly physicalFunction: Pick<PciDevice, 'bdf' | 'driver'> | undefined;
  /** Whether the device is a physical function with SR-IOV. */
  readonly isPhysicalFunction: boolean;
}

/** Why the kernel denied access by `EACCES`. @param facts `undefined` if nothing is known @internal */
export function tokenDenied(bdf: string, facts: TokenFacts | undefined): string {
  const { given = false, physicalFunction: physical, isPhysicalFunction = false } = facts ?? {};
  const problem = given ? 'was given another VF token than the one that is set' : 'opens only with a VF token';
  const remedy = `Give open(${JSON.stringify(bdf)}, { vfToken }) the UUID that`;
  if (physical !== undefined) {
    return `${bdf} ${problem}: it is a virtual function of ${physical.bdf}, whose driver is ${physical.driver ?? 'none'}. ${remedy} the user of ${physical.bdf} has set`;
  }
  if (isPhysicalFunction) {
    return `${bdf} ${problem}: virtual functions of it are open. ${remedy} these were opened with`;
  }
  return `${bdf} ${problem}: it is a virtual function whose physical function is bound to vfio-pci, or a physical function of which virtual functions are open. ${remedy} the user of the physical function has set`;
}

/** Why a device accepts no token; `undefined` if it accepts one, or none was given. @internal */
export function tokenUnwanted(bdf: string, facts: TokenFacts | undefined): string | undefined {
  if (facts === undefined || !facts.given || facts.isPhysicalFunction) return undefined;
  const { physicalFunction: physical } = facts;
  if (physical === undefined) return `${bdf} takes no VF token: it has no SR-IOV. Open it without vfToken`;
  if (isVfioDriver(physical.driver)) return undefined;
  return `${bdf} takes no VF token: its physical function ${physical.bdf} is not bound to vfio-pci (driver ${physical.driver ?? 'none'}). Open it without vfToken`;
}
