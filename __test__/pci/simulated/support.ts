/** Simulated devices that are closed at the end of a test, and registers of their config space. */
import type { ExecutionContext } from 'ava';
import { EventFd } from '../../../ts/event-fd.ts';
import type { DeviceRegion, PhysicalFunction } from '../../../ts/pci/physical-function.ts';
import type { SimulatedDeviceOptions } from '../../../ts/pci/simulated/options.ts';
import { SimulatedDevice } from '../../../ts/pci/simulated/simulated-device.ts';

export const COMMAND = 4n;
export const STATUS = 6n;
export const IO = 1;
export const MEMORY = 2;
export const MASTER = 4;
export const INTX_DISABLE = 0x400;

/** Offset of the first capability of the devices here. */
export const CAPABILITY = 0x40n;
/** In power management at {@link CAPABILITY}. */
export const PMCSR = CAPABILITY + 4n;
export const D3_HOT = 3;

export function simulated(t: ExecutionContext, options: Partial<SimulatedDeviceOptions> = {}): SimulatedDevice {
  const device = new SimulatedDevice({ bdf: '0000:00:06.0', ...options });
  t.teardown(() => device.close());
  return device;
}

export function read16(region: DeviceRegion, offset: bigint): number {
  const [low = 0, high = 0] = region.read(offset, 2);
  return low + 256 * high;
}

export function write16(region: DeviceRegion, offset: bigint, value: number): void {
  region.write(offset, Uint8Array.of(value & 0xff, value >> 8));
}

export function command({ config }: PhysicalFunction, value: number): void {
  write16(config, COMMAND, value);
}

/** Returns a region that must exist. */
export function region({ regions, bdf }: PhysicalFunction, index: number): DeviceRegion {
  const found = regions[index];
  if (found === undefined) throw new Error(`${bdf} has no region ${index}`);
  return found;
}

/** Creates eventfds that are closed at the end of the test. */
export function events(t: ExecutionContext, count: number): [EventFd, ...EventFd[]] {
  const made = (): EventFd => {
    const event = EventFd.create();
    t.teardown(() => event.close());
    return event;
  };
  return [made(), ...Array.from({ length: count - 1 }, made)];
}

/** Creates a device with all kinds of interrupts and bus mastering on. */
export function loud(t: ExecutionContext): SimulatedDevice {
  const device = simulated(t, {
    bars: [{ index: 0, length: 1n << 20n }],
    powerManagement: { noSoftReset: true },
    msi: { vectors: 4 },
    msix: { vectors: 5, bar: 0 },
    pcie: {},
    interruptPin: true,
  });
  command(device, MEMORY | MASTER);
  return device;
}
