/** Registers of the guest's config space whose values the VMM overrides. */
import { readOptions } from '../../arguments.ts';
import { PeerDmaError } from '../../errors.ts';
import { requireNumber } from '../../number-types.ts';
import { valueText } from '../../value-text.ts';
import type { Emulation } from './emulation.ts';
import { type GuestPortType, PORT_TYPES } from './port-type.ts';
import { CLASS_CODE, DEVICE_ID, REVISION_ID, SUBSYSTEM_ID, SUBSYSTEM_VENDOR_ID, VENDOR_ID } from './registers.ts';

/** Values that a guest reads instead of those of the device. Default of each: the value of the device */
export interface ConfigOverrides {
  /** 1 to 0xfffe: a function with 0 or 0xffff does not exist for a guest. */
  readonly vendorId?: number;
  /** 0 to 0xffff. */
  readonly deviceId?: number;
  /** Vendor of the card, 0 to 0xffff. */
  readonly subsystemVendorId?: number;
  /** ID of the card, 0 to 0xffff. */
  readonly subsystemId?: number;
  /** 0 to 0xff. */
  readonly revisionId?: number;
  /** Base class, subclass and interface, 0 to 0xffffff, as in 0x030200. */
  readonly classCode?: number;
  /** Type in the PCI Express hierarchy. */
  readonly portType?: GuestPortType;
}

interface Register {
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly least: number;
  readonly most: number;
}

const REGISTERS: Readonly<Record<Exclude<keyof ConfigOverrides, 'portType'>, Register>> = {
  vendorId: { offset: VENDOR_ID, length: 2, least: 1, most: 0xfffe },
  deviceId: { offset: DEVICE_ID, length: 2, least: 0, most: 0xffff },
  subsystemVendorId: { offset: SUBSYSTEM_VENDOR_ID, length: 2, least: 0, most: 0xffff },
  subsystemId: { offset: SUBSYSTEM_ID, length: 2, least: 0, most: 0xffff },
  revisionId: { offset: REVISION_ID, length: 1, least: 0, most: 0xff },
  classCode: { offset: CLASS_CODE, length: 3, least: 0, most: 0xffffff },
};
const NAMES = Object.keys(REGISTERS) as (keyof typeof REGISTERS)[];

/**
 * Reads and checks the overrides of a caller.
 *
 * @param bdf PCI address, for messages
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`
 * @internal
 */
export function readOverrides(bdf: string, overrides: ConfigOverrides): ConfigOverrides {
  const given = readOptions(overrides, [...NAMES, 'portType'], 'the overrides of config space');
  for (const name of NAMES) {
    const value = given[name];
    if (value === undefined) continue;
    requireNumber(value, name, bdf);
    const { least, most } = REGISTERS[name];
    if (Number.isInteger(value) && value >= least && value <= most) continue;
    const reason = `it is ${least} to 0x${most.toString(16)}, not ${valueText(value)}`;
    const text = `${bdf}: overriding ${name} failed: ${reason}. Omit it for the value of the device.`;
    throw new PeerDmaError('ERR_OUT_OF_RANGE', text, { bdf });
  }
  const { portType } = given;
  if (portType === undefined || PORT_TYPES.includes(portType)) return given;
  const reason = `it is one of ${PORT_TYPES.join(', ')}, not ${valueText(portType)}`;
  const text = `${bdf}: overriding portType failed: ${reason}. Omit it for the type of the device.`;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf });
}

/** Defines the overridden IDs. @internal */
export function defineIds(emulation: Emulation, overrides: ConfigOverrides): void {
  for (const name of NAMES) {
    const value = overrides[name];
    if (value === undefined) continue;
    const { offset, length } = REGISTERS[name];
    emulation.define({ offset, length, value, emulated: 0xffffffff });
  }
}
