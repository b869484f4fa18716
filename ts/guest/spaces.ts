/**
 * The address spaces in use, to find those that map the memory of a device.
 */
import type { FileMemory } from '../memory/file-memory.ts';
import type { AddressSpace } from './address-space.ts';

const spaces = new Set<WeakRef<AddressSpace>>();

/** @internal */
export function addSpace(space: WeakRef<AddressSpace>): void {
  spaces.add(space);
}

/** @internal */
export function deleteSpace(space: WeakRef<AddressSpace>): void {
  spaces.delete(space);
}

/** The address spaces that map memory of these files, or are about to, the oldest first. @internal */
export function spacesMapping(files: readonly FileMemory[]): AddressSpace[] {
  const found: AddressSpace[] = [];
  for (const reference of spaces) {
    const space = reference.deref();
    if (space === undefined) spaces.delete(reference);
    else if (space.byFile.has(files)) found.push(space);
  }
  return found;
}

/**
 * Maps what targets miss of the memory of a device that may respond again, in every address space. The status of a
 * target records what it does not map.
 *
 * @internal
 */
export function retryDeviceMemoryOf(files: readonly FileMemory[]): void {
  // It fails only in a space that was closed meanwhile, where nothing is missed.
  for (const space of spacesMapping(files)) space.retryDeviceMemory(files).catch(() => {});
}
