/**
 * The capabilities that a simulated device emulates, and registers that only a device uses.
 *
 * Other registers are in `config/registers.ts`. Names and numbers: Linux `pci_regs.h`, without the prefix PCI_.
 */
import { type Capability, capabilities } from '../config/capabilities.ts';
import { leastLength } from '../config/capability-lengths.ts';
import type { ConfigImage } from '../config/config-image.ts';
import { CFG_SPACE_SIZE } from '../config/registers.ts';

/** 1 byte. */
export const CACHE_LINE_SIZE = 0x0c;

/** The function keeps its registers on the transition from D3hot to D0: a bit of {@link PM_CTRL}. */
export const PM_CTRL_NO_SOFT_RESET = 0x0008;

/** PCI Express: device control 2, in capabilities of version 2. 2 bytes. */
export const EXP_DEVCTL2 = 0x28;

/** Advanced features: its length. 1 byte. */
export const AF_LENGTH = 2;
/** The function reports pending transactions: a bit of {@link AF_CAP}. */
export const AF_CAP_TP = 0x01;

/** Capabilities by their ID. @internal */
export type FoundCapabilities = ReadonlyMap<number, Capability>;

/**
 * Finds the first capability of each kind.
 *
 * A broken chain ends at the invalid link: a recorded config space may be as broken as its device.
 *
 * @internal
 */
export function findCapabilities(image: ConfigImage): FoundCapabilities {
  const found = new Map<number, Capability>();
  const end = Math.min(image.size, CFG_SPACE_SIZE);
  for (const capability of capabilities(image).found) {
    const { id, offset } = capability;
    if (!found.has(id) && offset + leastLength(image, capability) <= end) found.set(id, capability);
  }
  return found;
}
