/**
 * Resets and other changes of devices whose memory is mapped, in every guest memory that maps it.
 */
import type { FileMapper, SharedFile } from '../memory/shared-file.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';

/**
 * Unmaps the memory of devices from all DMA targets, calls `act`, and maps it again. Also maps the memory of the
 * devices that targets could not map before.
 *
 * @param files the memory of the devices
 * @param act revokes mappings of their memory, for example by a reset
 * @param own address spaces that wait for `act` even if they don't map any of the files
 * @param onTurn called before anything else, when earlier changes of the first address space have ended
 * @throws the error of `onTurn`: nothing has changed
 * @throws {PeerDmaError} `ERR_UNMAP_FAILED`, before `act` is called; the error of `act`
 * @internal
 */
export async function runWhileUnmappedEverywhere(
  files: readonly SharedFile[],
  act: () => void | Promise<void>,
  own: readonly GuestAddressSpace[] = [],
  onTurn: () => void = () => {},
): Promise<void> {
  const spaces = new Set<FileMapper>([...own, ...spacesMapping(files)]);
  // Always in the same order: two resets at once must not wait for one another.
  const sorted = [...spaces].sort((a, b) => a.id - b.id);
  const [first, ...others] = sorted;
  const within = others.reduceRight((inner, space) => () => space.runWhileUnmapped(files, inner), act);
  if (first === undefined) {
    onTurn();
    await within();
  } else {
    await first.runWhileUnmapped(files, within, onTurn);
  }
  // A reset wakes a device that was in a low-power state: targets can map memory now that they could not map before.
  // The reset has revoked mappings of guest memory that has mapped the device meanwhile.
  for (const space of new Set([...sorted, ...spacesMapping(files)])) await space.retryDeviceMemory(files);
}

/**
 * Maps what targets miss of the memory of a device that may respond again, in every address space. The status of a
 * target records what it does not map.
 *
 * @internal
 */
export function retryDeviceMemoryOf(files: readonly SharedFile[]): void {
  // It fails only in a space that was closed meanwhile, where nothing is missed.
  for (const space of spacesMapping(files)) space.retryDeviceMemory(files).catch(() => {});
}

/** The address spaces that map memory of these files, or are about to. */
function spacesMapping(files: readonly SharedFile[]): Set<FileMapper> {
  const found = new Set<FileMapper>();
  for (const { mappers } of files) {
    for (const reference of mappers) {
      const space = reference.deref();
      if (space === undefined) mappers.delete(reference);
      else found.add(space);
    }
  }
  return found;
}
