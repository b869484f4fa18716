/**
 * Parses and formats addresses of PCI functions.
 */
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';

/** Domain (4 digits, more below some controllers), bus, device, function. */
const FULL = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;
/** The form of other tools: in capitals, with more or fewer zeros, with or without the domain. */
const LOOSE = /^(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([01]?[0-9a-f])\.([0-7])$/i;
/** Prefixes of an address: `pci@` of lshw, `pci-` of udev's ID_PATH, `pci/` of devlink, `pci:` of DPDK. */
const SCHEME = /^pci[@/:-]/i;
/** A folder in /sys, or a relative link to one. The last part is the address. */
const FOLDER = /^(?:\.\.?)?\/(?:[^/]+\/)*([^/]+)\/?$/;
/** libvirt's name of a device, `pci_0000_01_00_0`, or udev's ID_PATH_TAG, `pci-0000_01_00_0`. */
const NODE_DEVICE = /^pci[_-]([0-9a-f]+)_([0-9a-f]+)_([0-9a-f]+)_([0-7])$/;

/** A GPU in /dev/dri/by-path. */
const GRAPHICS = /^(pci-.*)-(?:card|render)$/;

/** The kernel's name of a mediated device: a UUID. */
const MEDIATED = /^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Whether the text is the name of a mediated device. @internal */
export function isMediatedName(text: string): boolean {
  return MEDIATED.test(text);
}

/**
 * Converts the UUID of a mediated device or the address of a PCI function to the form of /sys.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the text is neither
 * @internal
 */
export function deviceName(text: string): string {
  return typeof text === 'string' && isMediatedName(text) ? text.toLowerCase() : pciAddress(text);
}

/** Whether the text is an address in the form of /sys. @internal */
export function isPciAddress(text: string): boolean {
  return FULL.test(text);
}

/**
 * Converts an address to the form of /sys, `0000:01:00.0`.
 *
 * Accepts an address without a domain, which then is 0 (`01:00.0`), with fewer digits (`1:00.0`) or more
 * (`00000000:01:00.0`), in capitals, a folder of /sys or a link to one, `pci@0000:01:00.0`, `pci_0000_01_00_0`,
 * `0000:01:00.0:` and `/dev/dri/by-path/pci-0000:01:00.0-card`.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the text is not an address
 */
export function pciAddress(text: string): string {
  const address = typeof text === 'string' ? parsePciAddress(text) : undefined;
  if (address !== undefined) return address;
  const given = typeof text === 'string' ? JSON.stringify(valueText(text)) : valueText(text);
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a PCI address looks like 0000:01:00.0, not ${given}`);
}

/** Like {@link pciAddress}, but returns `undefined` if the text is not an address. @internal */
export function parsePciAddress(text: string): string | undefined {
  const trimmed = text.trim();
  const last = FOLDER.exec(trimmed)?.[1] ?? trimmed;
  const whole = last.replace(GRAPHICS, '$1').replace(NODE_DEVICE, '$1:$2:$3.$4');
  // The kernel's log prints a colon after an address.
  const bare = whole.replace(SCHEME, '').replace(/:$/, '');
  const [, domain = '0', bus, device, number] = LOOSE.exec(bare) ?? [];
  if (bus === undefined || device === undefined) return undefined;
  const digits = [Number.parseInt(domain, 16).toString(16).padStart(4, '0'), bus.padStart(2, '0')];
  return `${digits.join(':')}:${device.padStart(2, '0')}.${number}`.toLowerCase();
}

/** @internal */
export function noSuchDevice(address: string): PeerDmaError {
  return new PeerDmaError('ERR_DEVICE_NOT_FOUND', `there is no PCI device ${address}: Run lspci -D for the list`, {
    bdf: address,
  });
}

/** Compares two addresses by number, domain first. @internal */
export function byAddress(a: string, b: string): number {
  const number = (text: string): bigint => BigInt(`0x${text.replaceAll(/[^0-9a-f]/gi, '') || '0'}`);
  const [first, second] = [number(a), number(b)];
  return first < second ? -1 : first > second ? 1 : 0;
}
