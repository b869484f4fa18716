/** Function-level reset through config space (FLR): a bit in one of two capabilities. */
import type { Capability } from './capabilities.ts';
import type { ConfigImage } from './config-image.ts';
import {
  AF_CAP,
  AF_CAP_FLR,
  AF_CTRL,
  AF_CTRL_FLR,
  CAP_ID_AF,
  CAP_ID_EXP,
  EXP_DEVCAP,
  EXP_DEVCAP_FLR,
  EXP_DEVCTL,
  EXP_DEVCTL_BCR_FLR,
} from './registers.ts';

/** A byte and the bit in it that resets the function. @internal */
export interface ResetBit {
  readonly offset: number;
  readonly bit: number;
}

/** Returns the reset bits that the function reports. @internal */
export function resetBits(image: ConfigImage, capabilities: Iterable<Capability>): readonly ResetBit[] {
  const found: ResetBit[] = [];
  for (const { id, offset } of capabilities) {
    if (id === CAP_ID_EXP && (image.u32(offset + EXP_DEVCAP) & EXP_DEVCAP_FLR) !== 0) {
      found.push({ offset: offset + EXP_DEVCTL + 1, bit: EXP_DEVCTL_BCR_FLR >> 8 });
    }
    if (id === CAP_ID_AF && (image.u8(offset + AF_CAP) & AF_CAP_FLR) !== 0) {
      found.push({ offset: offset + AF_CTRL, bit: AF_CTRL_FLR });
    }
  }
  return found;
}

/** Whether a write to config space resets the function. @internal */
export function resetsFunction(resets: readonly ResetBit[], offset: number, bytes: Uint8Array): boolean {
  return resets.some((reset) => ((bytes[reset.offset - offset] ?? 0) & reset.bit) !== 0);
}
