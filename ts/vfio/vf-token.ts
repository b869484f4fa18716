/**
 * VF tokens of opens, and errors about them. `host/vf-token.ts` predicts from a model of the machine.
 *
 * The user of a physical function shares a token, a UUID, with the users of its virtual functions (Linux
 * `vfio_pci_core_match_token_uuid`).
 */
import { PeerDmaError } from '../errors.ts';
import { isVfioDriver } from '../host/drivers.ts';
import type { HandedFiles } from './handed-device.ts';
import type { PciDevice } from './sysfs.ts';

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** A device to open. @internal */
export interface RequestedDevice extends PciDevice {
  /** The VF token, which is a secret. */
  readonly vfToken?: string | undefined;
  /** Its files, if another process has opened them. */
  readonly files?: HandedFiles | undefined;
}

/** Checks a token. The message does not contain it. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function requireVfToken(vfToken: string): string {
  if (typeof vfToken === 'string' && UUID.test(vfToken)) return vfToken;
  const text = 'vfToken is a UUID, such as bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3 (uuidgen makes one)';
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
}

/** Returns a device's address and token in the form of the native core and the kernel. @internal */
export function nameWithToken({ bdf, vfToken }: RequestedDevice): string {
  return vfToken === undefined ? bdf : `${bdf} vf_token=${vfToken}`;
}

/** Facts from /sys about the token of a device. @internal */
export interface TokenFacts {
  /** Whether a token was given. */
  readonly given: boolean;
  /** The physical function of a virtual function. */
  readonly physicalFunction: Pick<PciDevice, 'bdf' | 'driver'> | undefined;
  /** Whether the device is a physical function with SR-IOV. */
  readonly isPhysicalFunction: boolean;
}

/**
 * Returns why the kernel denied access with `EACCES`.
 *
 * @param facts `undefined` if nothing is known
 * @internal
 */
export function tokenDenied(bdf: string, facts: TokenFacts | undefined): string {
  const { given = false, physicalFunction: physical, isPhysicalFunction = false } = facts ?? {};
  const problem = given ? 'was given another VF token than the one that is set' : 'opens only with a VF token';
  const remedy = `Give open(${JSON.stringify(bdf)}, { vfToken }) the UUID that`;
  if (physical !== undefined) {
    const reason = `it is a virtual function of ${physical.bdf}, whose driver is ${physical.driver ?? 'none'}`;
    return `${bdf} ${problem}: ${reason}. ${remedy} the user of ${physical.bdf} has set`;
  }
  if (isPhysicalFunction) {
    return `${bdf} ${problem}: virtual functions of it are open. ${remedy} these were opened with`;
  }
  const reason =
    'it is a virtual function whose physical function is bound to vfio-pci, or a physical function with open ' +
    'virtual functions';
  return `${bdf} ${problem}: ${reason}. ${remedy} the user of the physical function has set`;
}

/** Returns why a device accepts no token; `undefined` if it accepts one, or none was given. @internal */
export function tokenUnwanted(bdf: string, facts: TokenFacts | undefined): string | undefined {
  if (facts === undefined || !facts.given || facts.isPhysicalFunction) return undefined;
  const { physicalFunction: physical } = facts;
  if (physical === undefined) return `${bdf} takes no VF token: it has no SR-IOV. Open it without vfToken`;
  if (isVfioDriver(physical.driver)) return undefined;
  const reason = `its physical function ${physical.bdf} is not bound to vfio-pci (driver ${physical.driver ?? 'none'})`;
  return `${bdf} takes no VF token: ${reason}. Open it without vfToken`;
}
