/**
 * Addresses of PCI functions as text.
 */
import { PeerDmaError, describeValue } from '../errors.ts';

/** Domain (4 digits; more behind some controllers), bus, device, function. */
const FULL = /^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/;

/** Whether it is an address as /sys writes them. @internal */
export function isPciAddress(text: string): boolean {
  return FULL.test(text);
}

/**
 * An address as /sys writes it, from how a person does: in capitals, or without the domain, which then is the first.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 */
export function pciAddress(text: string): string {
  const pattern = /^(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[01][0-9a-f]\.[0-7])$/i;
  const parts = typeof text === 'string' ? pattern.exec(text) : null;
  if (parts === null) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `a PCI address looks like 0000:01:00.0, not ${typeof text === 'string' ? JSON.stringify(text) : describeValue(text)}`,
    );
  }
  return `${parts[1] ?? '0000'}:${parts[2]}`.toLowerCase();
}

/** @internal */
export function noSuchDevice(address: string): PeerDmaError {
  return new PeerDmaError('ERR_DEVICE_NOT_FOUND', `there is no PCI device ${address}: lspci -D lists those there are`, {
    device: address,
  });
}

/** Order of addresses: by number, domain first. @internal */
export function byAddress(a: string, b: string): number {
  const number = (text: string): bigint => BigInt(`0x${text.replaceAll(/[^0-9a-f]/gi, '') || '0'}`);
  const [first, second] = [number(a), number(b)];
  return first < second ? -1 : first > second ? 1 : 0;
}
