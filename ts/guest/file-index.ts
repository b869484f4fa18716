/**
 * Finds the sub-mappings of the flat map and the regions that have memory of a file, without reading the others.
 */
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { FileMemory } from '../memory/file-memory.ts';
import type { FlatChange } from './flat-change.ts';

/** @internal */
export class FileIndex {
  /** No set is empty. */
  readonly #byFile = new Map<FileMemory, Set<SubMapping>>();
  /** Numbers of the regions that map device memory, with how many mappings each has. No map is empty. */
  readonly #regions = new Map<FileMemory, Map<number, number>>();
  /** Files that the change under way adds. Targets may have mapped them. */
  #added: ReadonlySet<FileMemory> = new Set();

  /** Whether the flat map has memory of one of these files, or a change under way adds it. */
  has(files: readonly FileMemory[]): boolean {
    return files.some((file) => this.#byFile.has(file) || this.#added.has(file));
  }

  /** Applies a change that adds these sub-mappings. `act` ends with {@link FileIndex.apply}, or throws. */
  async withAdded(added: readonly SubMapping[], act: () => Promise<void>): Promise<void> {
    this.#added = new Set(added.flatMap(({ memory }) => memory.file ?? []));
    try {
      await act();
    } finally {
      this.#added = new Set();
    }
  }

  /** The sub-mappings of these files, in order of address. */
  of(files: readonly FileMemory[]): SubMapping[] {
    const found = [...new Set(files)].flatMap((file) => [...(this.#byFile.get(file) ?? [])]);
    return found.sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
  }

  /** The numbers of the regions that map memory of a device's file, active or not. */
  regionsOf(file: FileMemory): number[] {
    return [...(this.#regions.get(file)?.keys() ?? [])];
  }

  /** Removes everything. */
  clear(): void {
    this.#byFile.clear();
    this.#regions.clear();
  }

  /** Applies a change of the memory map. */
  apply({ removed, added, deviceMappings = [] }: FlatChange): void {
    for (const { file, region, by } of deviceMappings) {
      const regions = this.#regions.get(file) ?? new Map<number, number>();
      const count = (regions.get(region) ?? 0) + by;
      if (count === 0) regions.delete(region);
      else regions.set(region, count);
      if (regions.size === 0) this.#regions.delete(file);
      else this.#regions.set(file, regions);
    }
    for (const sub of removed) {
      const { file } = sub.memory;
      const subs = file && this.#byFile.get(file);
      if (subs?.delete(sub) && file && subs.size === 0) this.#byFile.delete(file);
    }
    for (const sub of added) {
      const { file } = sub.memory;
      if (file === undefined) continue;
      const subs = this.#byFile.get(file);
      if (subs === undefined) this.#byFile.set(file, new Set([sub]));
      else subs.add(sub);
    }
  }
}
