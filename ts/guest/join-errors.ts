/**
 * The errors of a DMA target that cannot join guest memory.
 */
import type { DmaMapper } from '../dma/dma-mapper.ts';
import { PeerDmaError } from '../errors.ts';

/** The error of a target that was closed while it joined. @internal */
export function closedMeanwhile(target: string): PeerDmaError {
  const text = `${target} was closed while it joined (targetClosed): it has not joined`;
  return new PeerDmaError('ERR_CLOSED', text, { target });
}

/** The error of a target that joined before, and still has mappings or a quarantine. @internal */
export function joinedAlready({ name, joined }: DmaMapper): PeerDmaError {
  if (joined) {
    return new PeerDmaError('ERR_INVALID_ARGUMENT', `${name} has joined this memory map already`, { target: name });
  }
  const reason = 'it has quarantined mappings and may still reach their memory';
  const text = `${name}: join failed: ${reason}. Close the target, then call targetClosed.`;
  return new PeerDmaError('ERR_RANGE_QUARANTINED', text, { target: name });
}

/** The error of a second target for the processors of one guest. @internal */
export function hasProcessors({ name }: DmaMapper): PeerDmaError {
  const reason = `${name} maps it for the processors of the guest`;
  const text = `guest memory: adding a target for processors failed: ${reason}. Close that virtual machine first`;
  return new PeerDmaError('ERR_INVALID_ARGUMENT', text, { target: name });
}
