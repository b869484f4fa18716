/**
 * Where the capabilities of a simulated device are that it has to play itself. Registers that only a device knows of, and
 * no guest is kept from, are named here; the rest is in `config/registers.ts`. Names and numbers: Linux `pci_regs.h`,
 * there with PCI_ in front.
 */
import {
  AF_SIZEOF,
  CAPABILITY_LIST,
  CAP_ID_AF,
  CAP_ID_EXP,
  CAP_ID_MSI,
  CAP_ID_MSIX,
  CAP_ID_PM,
  CAP_LIST_NEXT,
  CAP_POINTER_MASK,
  CFG_SPACE_SIZE,
  EXP_LEAST_SIZEOF,
  MSIX_SIZEOF,
  MSI_FLAGS,
  MSI_FLAGS_64BIT,
  MSI_FLAGS_MASKBIT,
  PM_SIZEOF,
  STATUS,
  STATUS_CAP_LIST,
  STD_HEADER_SIZEOF,
} from '../config/registers.ts';

/** 2 bytes each, but for the class: 3, and the revision before it: 1. */
export const DEVICE_ID = 0x02;
export const REVISION_ID = 0x08;
export const CACHE_LINE_SIZE = 0x0c;
export const SUBSYSTEM_VENDOR_ID = 0x2c;
export const SUBSYSTEM_ID = 0x2e;

/** The function keeps its registers on the way from D3hot to D0: a bit of {@link PM_CTRL}. */
export const PM_CTRL_NO_SOFT_RESET = 0x0008;

/** PCI Express: the version of the capability and the type of the function. 2 bytes. */
export const EXP_FLAGS = 2;
/** PCI Express: device control 2, in capabilities of version 2. 2 bytes. */
export const EXP_DEVCTL2 = 0x28;
/** Bytes of a capability of version 2. */
export const EXP_V2_SIZEOF = 0x3c;

/** Advanced features: its length. 1 byte. */
export const AF_LENGTH = 2;
/** The function tells whether transactions are pending: a bit of {@link AF_CAP}. */
export const AF_CAP_TP = 0x01;

/** Offsets of capabilities by their ID. @internal */
export type FoundCapabilities = ReadonlyMap<number, number>;

/**
 * Finds the first capability of each kind. A chain that leads astray just ends: a recorded config space may be as broken as
 * its device was, and who reads it should find it so.
 *
 * @internal
 */
export function findCapabilities(config: DataView): FoundCapabilities {
  const found = new Map<number, number>();
  if ((config.getUint16(STATUS, true) & STATUS_CAP_LIST) === 0) return found;
  const seen = new Set<number>();
  const end = Math.min(config.byteLength, CFG_SPACE_SIZE);
  let at = config.getUint8(CAPABILITY_LIST) & CAP_POINTER_MASK;
  while (at >= STD_HEADER_SIZEOF && at < end && !seen.has(at)) {
    seen.add(at);
    const id = config.getUint8(at);
    if (!found.has(id) && at + lengthOf(id, config, at) <= end) found.set(id, at);
    at = config.getUint8(at + CAP_LIST_NEXT) & CAP_POINTER_MASK;
  }
  return found;
}

/** Bytes of an MSI capability that has these flags. @internal */
export function msiLength(flags: number): number {
  const untilData = (flags & MSI_FLAGS_64BIT) === 0 ? 8 : 12;
  // The data has 2 bytes, and with masks 2 more up to the masks and pending bits.
  return untilData + ((flags & MSI_FLAGS_MASKBIT) === 0 ? 2 : 12);
}

const LENGTHS: Readonly<Record<number, number>> = {
  [CAP_ID_PM]: PM_SIZEOF,
  [CAP_ID_MSIX]: MSIX_SIZEOF,
  [CAP_ID_EXP]: EXP_LEAST_SIZEOF,
  [CAP_ID_AF]: AF_SIZEOF,
};

function lengthOf(id: number, config: DataView, at: number): number {
  return id === CAP_ID_MSI ? msiLength(config.getUint16(at + MSI_FLAGS, true)) : (LENGTHS[id] ?? 4);
}
