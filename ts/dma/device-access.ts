/**
 * The access policy of device memory: for processors of the guest, and for other devices.
 */
import { readArray, requireBoolean } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';

/** The domain of device memory and of targets that state none. @internal */
export const DEFAULT_DOMAIN = 'default';

/** The policy of a window of device memory. */
export interface DeviceAccessOptions {
  /**
   * Whether processors of the guest access the memory directly. If not, their accesses exit to the VMM, and other
   * devices still reach the memory. Default: true
   */
  readonly mmap?: boolean;
  /** Whether other devices reach the memory. If not, no IOMMU maps it. Default: true */
  readonly peerToPeer?: boolean;
  /** The peer-to-peer domain: only targets that have it in `peerToPeerDomains` map the memory. Default: `default` */
  readonly peerToPeerDomain?: string;
}

/** @internal */
export interface DeviceAccess {
  readonly processors: boolean;
  readonly devices: boolean;
  readonly domain: string;
}

/** @internal */
export const FULL_ACCESS: DeviceAccess = { processors: true, devices: true, domain: DEFAULT_DOMAIN };

/**
 * Checks and copies the options of device memory.
 *
 * @param name of the object with the options, for messages
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function readDeviceAccess(options: DeviceAccessOptions, name: string): DeviceAccess {
  const { mmap = true, peerToPeer = true, peerToPeerDomain = DEFAULT_DOMAIN } = options;
  requireBoolean(mmap, `mmap of ${name}`);
  requireBoolean(peerToPeer, `peerToPeer of ${name}`);
  requireDomain(peerToPeerDomain, `peerToPeerDomain of ${name}`);
  if (mmap && peerToPeer && peerToPeerDomain === DEFAULT_DOMAIN) return FULL_ACCESS;
  return { processors: mmap, devices: peerToPeer, domain: peerToPeerDomain };
}

/** The options of an access, for {@link readDeviceAccess}. @internal */
export function optionsOf({ processors, devices, domain }: DeviceAccess): Required<DeviceAccessOptions> {
  return { mmap: processors, peerToPeer: devices, peerToPeerDomain: domain };
}

/**
 * Checks and copies the domains whose device memory a target maps.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function readDomains(domains: readonly string[] = [DEFAULT_DOMAIN]): ReadonlySet<string> {
  const names = readArray(domains, 'peerToPeerDomains');
  for (const name of names) requireDomain(name, 'a name in peerToPeerDomains');
  return new Set(names);
}

function requireDomain(domain: string, what: string): void {
  if (typeof domain === 'string' && domain !== '') return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${what} is a string that is not empty, not ${valueText(domain)}`);
}
