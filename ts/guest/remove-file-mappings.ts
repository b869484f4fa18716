/**
 * Removes the memory of a device from guest memory before the device is closed.
 */
import type { SharedFile } from '../memory/shared-file.ts';
import type { GuestAddressSpace } from './guest-address-space.ts';

/**
 * Unmaps all memory of a device's file from every region, active or not. The cost grows with these regions alone.
 *
 * @throws {PeerDmaError} as {@link GuestAddressSpace.change}
 * @internal
 */
export function removeFileMappings(space: GuestAddressSpace, file: SharedFile): Promise<void> {
  return space.change((draft) => {
    for (const id of space.byFile.regionsOf(file)) {
      for (const { memory, range } of draft.region(id).mappings.values()) {
        if (memory.file === file) draft.removeMappings(id, range);
      }
    }
  });
}
