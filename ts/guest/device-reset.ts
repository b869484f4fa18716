/**
 * Resets of devices whose memory is mapped, in every guest memory that maps it.
 */
import type { MemoryFile } from '../memory/memory-file.ts';
import type { AddressSpace } from './address-space.ts';
import { spacesShowing } from './spaces.ts';

/**
 * Acts on devices while no DMA target maps their memory: unmaps it before, maps it again after, with what targets
 * could not map before.
 *
 * @param files the memory of the devices
 * @param act what takes their memory away from IOMMUs, such as a reset
 * @param own address spaces that wait for `act` even if they don't map any of the files
 * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: `act` was not called; what `act` throws
 * @internal
 */
export async function withoutMappingsOf(
  files: readonly MemoryFile[],
  act: () => void | Promise<void>,
  own: readonly AddressSpace[] = [],
): Promise<void> {
  const spaces = new Set([...own, ...spacesShowing(files)]);
  // In one order everywhere: two resets at once must not wait for one another.
  const sorted = [...spaces].sort((a, b) => a.order - b.order);
  const within = sorted.reduceRight((inner, space) => () => space.withoutMappings(files, inner), act);
  await within();
  // A device that slept is awake after a reset: targets can map now what they could not map before it. Guest memory
  // that began to show the device meanwhile has mappings that the reset has made void.
  for (const space of new Set([...sorted, ...spacesShowing(files)])) await space.giveMissing(files);
}
