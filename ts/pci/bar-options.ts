/**
 * The VMM's options for the BARs of an assigned device: address and access policy.
 */
import { readEntries, readOptions, requireUnsigned } from '../arguments.ts';
import { type DeviceAccessOptions, type DeviceAccess, readDeviceAccess } from '../dma/device-access.ts';
import { PeerDmaError } from '../errors.ts';
import { valueText } from '../value-text.ts';
import type { PhysicalFunction } from './physical-function.ts';

/** Options of one BAR. */
export interface BarOptions extends Omit<DeviceAccessOptions, 'peerToPeerDomain'> {
  /** Pins the BAR to a guest-physical address, or to its `host` address. Default: the guest places it */
  readonly address?: 'host' | bigint;
}

/** Options by BAR number, 0 to 5. An address alone pins the BAR. */
export type BarsOptions = Readonly<Record<number, 'host' | bigint | BarOptions>>;

/** The options of a device's BARs, checked. @internal */
export interface BarPolicy {
  /** The addresses of pinned BARs, by BAR number. */
  readonly pinned: ReadonlyMap<number, 'host' | bigint>;
  /** Returns the access policy of a BAR. @param bar its number, or that of the ROM */
  accessOf(bar: number): DeviceAccess;
}

/**
 * Checks and copies the options of the BARs of a device.
 *
 * @param domain of all of its BARs
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export function readBars({ bdf, regions }: PhysicalFunction, bars: BarsOptions, domain: string | undefined): BarPolicy {
  const inDomain = domain === undefined ? {} : { peerToPeerDomain: domain };
  const others = readDeviceAccess(inDomain, bdf);
  const pinned = new Map<number, 'host' | bigint>();
  const access = new Map<number, DeviceAccess>();
  for (const [key, given] of readEntries(bars, 'options of BARs')) {
    const index = Number(key);
    const fail = (problem: string) =>
      new PeerDmaError('ERR_INVALID_ARGUMENT', `BAR ${key} of ${bdf}: reading its options failed: ${problem}`, { bdf });
    if (!Number.isInteger(index) || index < 0 || index > 5) throw fail('BARs are numbered from 0 to 5');
    if (regions[index] === undefined) throw fail('the device does not have it');
    const name = `bars[${index}] of ${bdf}`;
    const { address, ...options } = isObject(given)
      ? readOptions(given, ['address', 'mmap', 'peerToPeer'], name)
      : { address: given };
    access.set(index, readDeviceAccess({ ...options, ...inDomain }, name));
    if (address === undefined) continue;
    if (typeof address !== 'bigint' && typeof address !== 'number' && address !== 'host') {
      throw fail(`its address is 'host' or a bigint, not ${valueText(address)}`);
    }
    pinned.set(index, address === 'host' ? address : requireUnsigned(address, isObject(given) ? 'address' : name));
  }
  return { pinned, accessOf: (bar) => access.get(bar) ?? others };
}

function isObject(given: 'host' | bigint | BarOptions): given is BarOptions {
  return typeof given === 'object' && given !== null;
}
