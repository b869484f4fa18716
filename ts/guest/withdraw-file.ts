/**
 * Takes the memory of a device out of guest memory before the device is closed.
 */
import type { MemoryFile } from '../memory/memory-file.ts';
import type { AddressSpace } from './address-space.ts';

/**
 * Unmaps all memory of a device's file from every region, placed or not. Costs what these regions have, however many
 * others there are.
 *
 * @throws {PeerDmaError} as {@link AddressSpace.change}
 * @internal
 */
export function withdrawFile(space: AddressSpace, file: MemoryFile): Promise<void> {
  return space.change((draft) => {
    for (const id of space.byFile.regionsOf(file)) {
      for (const { store, range } of draft.region(id).mappings.values()) {
        if (store.file === file) draft.unmap(id, range);
      }
    }
  });
}
