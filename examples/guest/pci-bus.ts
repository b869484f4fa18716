/**
 * The PCI bus of a guest, which its firmware scans by configuration mechanism #1.
 *
 * PCI Local Bus Specification 3.0, 3.2.2.3.2 (the ports) and 6.2.1 (Header Type). The guest has one processor, which
 * makes one access after the other, so none of its reads has to wait.
 */
import { PciHostBridge } from 'peerdma';
import type { GuestMmio } from './bar.ts';
import type { GuestFunction } from './firmware.ts';

/** Enables CONFIG_DATA. */
const ENABLE = 0x8000_0000;

const DEVICES = 32;
const FUNCTIONS = 8;

/** Offsets in config space. */
const VENDOR = 0x00;
const CLASS = 0x0a;
const HEADER_TYPE = 0x0e;

const NO_VENDOR = 0xffff;
const MULTI_FUNCTION = 0x80;
const HOST_BRIDGE = 0x0600;

/** A function of bus 0, with accesses through the bridge. */
export class BusFunction implements GuestFunction, GuestMmio {
  /** Device and function, as in `01.0`. */
  readonly address: string;
  readonly #bridge: PciHostBridge;
  readonly #selector: number;

  constructor(bridge: PciHostBridge, device: number, func: number) {
    this.address = `${device.toString(16).padStart(2, '0')}.${func}`;
    this.#bridge = bridge;
    this.#selector = (ENABLE | (device << 11) | (func << 8)) >>> 0;
  }

  configRead(offset: number, size: number): number {
    return atOnce(this.#bridge.portRead(this.#select(offset), size));
  }

  async configWrite(offset: number, size: number, value: number): Promise<void> {
    await this.#bridge.portWrite(this.#select(offset), size, value);
  }

  mmioRead(gpa: bigint, length: number): Uint8Array {
    return atOnce(this.#bridge.mmioRead(gpa, length));
  }

  mmioWrite(gpa: bigint, bytes: Uint8Array): void {
    atOnce(this.#bridge.mmioWrite(gpa, bytes));
  }

  /** Selects a dword. Returns the port of a byte in it. */
  #select(offset: number): number {
    atOnce(this.#bridge.portWrite(PciHostBridge.CONFIG_ADDRESS, 4, this.#selector + (offset & ~3)));
    return PciHostBridge.CONFIG_DATA + (offset & 3);
  }
}

/** Finds the functions of bus 0, except host bridges, in ascending order of their addresses. */
export function scanBus(bridge: PciHostBridge): BusFunction[] {
  const found: BusFunction[] = [];
  for (let device = 0; device < DEVICES; device++) {
    const first = new BusFunction(bridge, device, 0);
    if (first.configRead(VENDOR, 2) === NO_VENDOR) continue;
    const last = (first.configRead(HEADER_TYPE, 1) & MULTI_FUNCTION) === 0 ? 1 : FUNCTIONS;
    for (let number = 0; number < last; number++) {
      const func = new BusFunction(bridge, device, number);
      if (func.configRead(VENDOR, 2) !== NO_VENDOR && func.configRead(CLASS, 2) !== HOST_BRIDGE) found.push(func);
    }
  }
  return found;
}

/** The value of an access that does not wait. */
function atOnce<T>(result: T | Promise<T>): T {
  if (result instanceof Promise) throw new Error('the access waits for a config write: await that first');
  return result;
}
