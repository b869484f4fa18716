/**
 * Distinguishes cards from parts of the chipset when the class code does not.
 */
import type { PciFunction } from './model.ts';

/** Classes of host, ISA, EISA and MCA bridges, without the programming interface. All are parts of the chipset. */
const CHIPSET_CLASSES: ReadonlySet<number> = new Set([0x0600, 0x0601, 0x0602, 0x0603]);
/** "Other bridge": parts of the chipset, such as a power management controller, and also NVSwitches. */
const OTHER_BRIDGE = 0x0680;
/** Base class of non-essential instrumentation: placeholder functions without registers. */
const DUMMY = 0x13;

/** Whether a function is a bridge of the chipset or an "other bridge" that is not a card. @internal */
export function isChipset(device: PciFunction): boolean {
  const { classCode } = device;
  if (classCode === 'unknown') return false;
  if (classCode >> 8 !== OTHER_BRIDGE) return CHIPSET_CLASSES.has(classCode >> 8);
  return !hasLinkAbove(device);
}

/** Whether a function is on a card and not a part of the chipset, whatever its class. @internal */
export function isOnCard(device: PciFunction): boolean {
  const { classCode } = device;
  return hasLinkAbove(device) && !isChipset(device) && (classCode === 'unknown' || classCode >> 16 !== DUMMY);
}

function hasLinkAbove({ parent, portType }: PciFunction): boolean {
  return parent !== undefined || portType === 'endpoint' || portType === 'legacy-endpoint';
}
