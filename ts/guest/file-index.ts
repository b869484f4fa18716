/**
 * Finds the sub-mappings and regions that have memory of a file, without reading the others.
 *
 * It also lists the address space in the files that it maps.
 */
import type { SubMapping } from '../dma/sub-mapping.ts';
import type { FileMapper, SharedFile } from '../memory/shared-file.ts';
import type { FlatChange } from './flat-diff.ts';

/** @internal */
export class FileIndex {
  readonly #space: WeakRef<FileMapper>;
  /** By file and number of the region. No map and no set is empty. */
  readonly #byFile = new Map<SharedFile, Map<number, Set<SubMapping>>>();
  /** Numbers of the regions that map device memory, with how many mappings each has. No map is empty. */
  readonly #regions = new Map<SharedFile, Map<number, number>>();
  /** Files that the change under way adds. Targets may have mapped them. */
  #added: ReadonlySet<SharedFile> = new Set();

  constructor(space: WeakRef<FileMapper>) {
    this.#space = space;
  }

  /** Applies a change that adds these sub-mappings. `act` ends with {@link FileIndex.apply}, or throws. */
  async withAdded(added: readonly SubMapping[], act: () => Promise<void>): Promise<void> {
    const files = new Set(added.flatMap(({ memory }) => memory.file ?? []));
    this.#added = files;
    for (const file of files) this.#list(file);
    try {
      await act();
    } finally {
      this.#added = new Set();
      for (const file of files) this.#list(file);
    }
  }

  /** The sub-mappings of these files, in order of address. */
  of(files: readonly SharedFile[]): SubMapping[] {
    const found = [...new Set(files)].flatMap((file) => this.#inRegions(file, () => true));
    return found.sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
  }

  /** The sub-mappings of a file in all regions but one, unordered. */
  inOtherRegions(file: SharedFile, region: number): SubMapping[] {
    return this.#inRegions(file, (other) => other !== region);
  }

  /** The numbers of the regions that map memory of a device's file, active or not. */
  regionsOf(file: SharedFile): number[] {
    return [...(this.#regions.get(file)?.keys() ?? [])];
  }

  /** Removes everything. */
  clear(): void {
    const files = [...this.#byFile.keys()];
    this.#byFile.clear();
    this.#regions.clear();
    for (const file of files) this.#list(file);
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
      const regions = file && this.#byFile.get(file);
      const subs = regions?.get(sub.regionId);
      if (!subs?.delete(sub) || !file || !regions || subs.size > 0) continue;
      regions.delete(sub.regionId);
      if (regions.size > 0) continue;
      this.#byFile.delete(file);
      this.#list(file);
    }
    for (const sub of added) {
      const { file } = sub.memory;
      if (file === undefined) continue;
      const regions = this.#byFile.get(file) ?? new Map<number, Set<SubMapping>>();
      this.#byFile.set(file, regions);
      const subs = regions.get(sub.regionId);
      if (subs === undefined) regions.set(sub.regionId, new Set([sub]));
      else subs.add(sub);
    }
  }

  #inRegions(file: SharedFile, isMeant: (region: number) => boolean): SubMapping[] {
    const regions = this.#byFile.get(file) ?? new Map<number, Set<SubMapping>>();
    return [...regions].flatMap(([region, subs]) => (isMeant(region) ? [...subs] : []));
  }

  /** Lists the address space in a file that it maps or is about to map, and in no other. */
  #list(file: SharedFile): void {
    if (!this.#byFile.has(file) && !this.#added.has(file)) {
      file.mappers.delete(this.#space);
    } else if (!file.mappers.has(this.#space)) {
      for (const mapper of file.mappers) if (mapper.deref() === undefined) file.mappers.delete(mapper);
      file.mappers.add(this.#space);
    }
  }
}
