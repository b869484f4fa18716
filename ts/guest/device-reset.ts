/**
 * Resets of devices whose memory is mapped, in every guest memory that maps it.
 */
import type { FileMemory } from '../memory/file-memory.ts';
import type { AddressSpace } from './address-space.ts';
import { spacesShowing } from './spaces.ts';

/**
 * Unmaps the memory of devices from all DMA targets, calls `act`, and maps it again, with what targets could not map
 * before.
 *
 * @param files the memory of the devices
 * @param act revokes mappings of their memory, for example by a reset
 * @param own address spaces that wait for `act` even if they don't map any of the files
 * @throws {PeerDmaError} `ERR_UNMAP_FAILED`, before `act` is called; the error of `act`
 * @internal
 */
export async function withoutMappingsOf(
  files: readonly FileMemory[],
  act: () => void | Promise<void>,
  own: readonly AddressSpace[] = [],
): Promise<void> {
  const spaces = new Set([...own, ...spacesShowing(files)]);
  // Always in the same order: two resets at once must not wait for one another.
  const sorted = [...spaces].sort((a, b) => a.order - b.order);
  const within = sorted.reduceRight((inner, space) => () => space.withoutMappings(files, inner), act);
  await within();
  // A reset wakes a device that was in a low-power state: targets can map memory now that they could not map before.
  // The reset has revoked mappings of guest memory that has mapped the device meanwhile.
  for (const space of new Set([...sorted, ...spacesShowing(files)])) await space.giveMissing(files);
}
