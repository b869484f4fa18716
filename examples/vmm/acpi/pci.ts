/**
 * The PCI host bridge in the DSDT: its buses, windows and interrupt lines.
 */
import { type AddressRange, PciHostBridge } from 'peerdma';
import { lineOfPin } from 'peerdma/kvm';
import { device, integer, name, packageOf, text } from './aml.ts';
import type { Bytes } from './bytes.ts';
import { lastBus } from './mcfg.ts';
import { buses, memory, ports, resources } from './resources.ts';

/** CONFIG_ADDRESS and CONFIG_DATA: eight ports. */
const CONFIG_PORTS = PciHostBridge.CONFIG_ADDRESS;
const CONFIG_PORT_COUNT = 8;

const SLOTS = 32;
/** INTA to INTD. */
const PINS = 4;
const ALL_FUNCTIONS = 0xffff;

/** @param windows guest-physical addresses for BARs */
export function hostBridge(ecam: AddressRange, windows: readonly AddressRange[]): Bytes {
  const ranges = windows.map((range) => memory(range, 'window'));
  return device(
    'PCI0',
    name('_HID', text('PNP0A08')), // PCI Express
    name('_CID', text('PNP0A03')), // and PCI
    ...['_UID', '_SEG', '_BBN'].map((segment) => name(segment, integer(0))),
    name('_CRS', resources(buses(lastBus(ecam)), ports(CONFIG_PORTS, CONFIG_PORT_COUNT), ...ranges)),
    name('_PRT', packageOf(...interruptRoutes())),
  );
}

/** The ECAM as a motherboard resource: otherwise guests do not use it. */
export function reservedEcam(ecam: AddressRange): Bytes {
  return device('ECAM', name('_HID', text('PNP0C02')), name('_CRS', resources(memory(ecam, 'itself'))));
}

/** Lines of PCI are levels. They are active low for the guest; a line of KVM is active or not, without a polarity. */
function interruptRoutes(): readonly Bytes[] {
  const noLinkDevice = integer(0);
  return Array.from({ length: SLOTS * PINS }, (_, index) => {
    const [slot, pin] = [Math.floor(index / PINS), index % PINS];
    const address = integer(slot * 0x1_0000 + ALL_FUNCTIONS);
    return packageOf(address, integer(pin), noLinkDevice, integer(lineOfPin(slot, pin + 1)));
  });
}
