/**
 * Tells cards from parts of the chipset, of functions whose class does not.
 */
import type { PciFunction } from './model.ts';

/** Classes of host, ISA, EISA and MCA bridges, without the programming interface: parts of the chipset. */
const CHIPSET_CLASSES: ReadonlySet<number> = new Set([0x0600, 0x0601, 0x0602, 0x0603]);
/** "Other bridge": parts of the chipset, such as a power management controller, but also NVSwitches. */
const OTHER_BRIDGE = 0x0680;
/** Base class of non-essential instrumentation: functions without registers that fill a place. */
const DUMMY = 0x13;

/** Whether a function is a bridge of the chipset or an "other bridge" that is not a card. @internal */
export function isChipset(device: PciFunction): boolean {
  const { classCode } = device;
  if (classCode === 'unknown') return false;
  if (classCode >> 8 !== OTHER_BRIDGE) return CHIPSET_CLASSES.has(classCode >> 8);
  return !hasLinkAbove(device);
}

/** Whether a function is on a card, and not a part of the chipset, whatever its class says that it does. @internal */
export function isOnCard(device: PciFunction): boolean {
  const { classCode } = device;
  return hasLinkAbove(device) && !isChipset(device) && (classCode === 'unknown' || classCode >> 16 !== DUMMY);
}

function hasLinkAbove({ parent, portType }: PciFunction): boolean {
  return parent !== undefined || portType === 'endpoint' || portType === 'legacy-endpoint';
}
