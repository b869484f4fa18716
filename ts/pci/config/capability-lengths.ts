/** The lengths of conventional capabilities. */
import type { Capability, Structure } from './capabilities.ts';
import type { ConfigImage } from './config-image.ts';
import { msiLength } from './msi.ts';
import {
  AF_SIZEOF,
  CAP_ID_AF,
  CAP_ID_EXP,
  CAP_ID_MSI,
  CAP_ID_MSIX,
  CAP_ID_PM,
  CAP_ID_SSVID,
  CAP_ID_VNDR,
  CAP_ID_VPD,
  CAP_SIZEOF,
  CFG_SPACE_SIZE,
  EXP_ENDPOINT_SIZEOF_V1,
  EXP_FLAGS,
  EXP_FLAGS_TYPE,
  EXP_FLAGS_TYPE_SHIFT,
  EXP_FLAGS_VERS,
  EXP_LEAST_SIZEOF,
  EXP_TYPE_RC_END,
  EXP_V2_SIZEOF,
  MSIX_SIZEOF,
  MSI_FLAGS,
  PM_SIZEOF,
  SSVID_SIZEOF,
  VNDR_LENGTH,
  VNDR_LEAST_SIZEOF,
  VPD_SIZEOF,
} from './registers.ts';

/** Returns the minimum length of a capability, or the length of its emulated part. @internal */
export function leastLength(image: ConfigImage, capability: Capability): number {
  switch (capability.id) {
    case CAP_ID_PM:
      return PM_SIZEOF;
    case CAP_ID_MSI:
      return msiLength(image.u16(capability.offset + MSI_FLAGS));
    case CAP_ID_MSIX:
      return MSIX_SIZEOF;
    case CAP_ID_EXP:
      return EXP_LEAST_SIZEOF;
    case CAP_ID_AF:
      return AF_SIZEOF;
    default:
      return CAP_SIZEOF;
  }
}

/**
 * Returns the length of a PCI Express capability. It ends at the next capability if that is nearer.
 *
 * In version 2, it has the registers of all types, and those that a function lacks are reserved (PCI Express Base
 * Specification, 7.5.3). The lengths of Linux differ (`vfio_pci_config.c`, `vfio_cap_len`): 0x34 bytes in version 2,
 * without the registers of slots, and 0x14 in version 1, also for an integrated endpoint.
 *
 * @param all the conventional capabilities
 * @internal
 */
export function expressLength(image: ConfigImage, capability: Capability, all: readonly Capability[]): number {
  return Math.min(ownExpressLength(image, capability), endOf(capability, all) - capability.offset);
}

function ownExpressLength(image: ConfigImage, { offset }: Capability): number {
  const flags = image.u16(offset + EXP_FLAGS);
  if ((flags & EXP_FLAGS_VERS) > 1) return EXP_V2_SIZEOF;
  const type = (flags & EXP_FLAGS_TYPE) >> EXP_FLAGS_TYPE_SHIFT;
  return type === EXP_TYPE_RC_END ? EXP_LEAST_SIZEOF : EXP_ENDPOINT_SIZEOF_V1;
}

/**
 * Returns the bytes of each capability, in any order.
 *
 * A capability of unknown length ends at the next higher one, or at the end of conventional config space.
 *
 * @internal
 */
export function occupiedBytes(image: ConfigImage, capabilities: readonly Capability[]): Structure[] {
  return capabilities.map((capability) => {
    const { offset } = capability;
    const length = knownLength(image, capability, capabilities) ?? endOf(capability, capabilities) - offset;
    return { offset, length };
  });
}

/** Returns the offset of the next higher capability, or the end of conventional config space. */
function endOf({ offset }: Capability, all: readonly Capability[]): number {
  return Math.min(CFG_SPACE_SIZE, ...all.map((other) => other.offset).filter((other) => other > offset));
}

function knownLength(image: ConfigImage, capability: Capability, all: readonly Capability[]): number | undefined {
  const { id, offset } = capability;
  if (offset + leastLength(image, capability) > image.size) return undefined; // the host has truncated it
  switch (id) {
    case CAP_ID_EXP:
      return expressLength(image, capability, all);
    case CAP_ID_VPD:
      return VPD_SIZEOF;
    case CAP_ID_SSVID:
      return SSVID_SIZEOF;
    case CAP_ID_VNDR: {
      const length = offset + VNDR_LENGTH < image.size ? image.u8(offset + VNDR_LENGTH) : 0;
      return length >= VNDR_LEAST_SIZEOF ? length : undefined;
    }
    case CAP_ID_PM:
    case CAP_ID_MSI:
    case CAP_ID_MSIX:
    case CAP_ID_AF:
      return leastLength(image, capability);
    default:
      return undefined;
  }
}
