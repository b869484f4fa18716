/**
 * A simple model of guest memory. It has an array of pages for each region, and the winning region for each address.
 * Property tests compare guest memory with it.
 */
import type { MemoryKind } from '../../ts/index.ts';

/** Numbers of stores: from this one on private memory, lower ones are files. */
export const PRIVATE = 1000;

/**
 * The contents of one page of a region. It is a page of a store, which is a file or the private memory of one mapping.
 */
export interface ModelPage {
  readonly store: number;
  readonly page: number;
  readonly writable: boolean;
}

/** One page of the address space. */
export interface ModelCell extends ModelPage {
  readonly kind: MemoryKind;
  readonly region: string;
  /** Distinguishes regions of one name; one of them exists at a time. */
  readonly id: number;
}

/** The pages of the address space. */
export type ModelFlat = readonly (ModelCell | undefined)[];

export interface ModelRegion {
  /** The lower is the older. */
  readonly id: number;
  readonly name: string;
  readonly kind: MemoryKind;
  readonly priority: number;
  readonly pages: (ModelPage | undefined)[];
  /** The one page address that it can have; a window can have any. */
  readonly home: number | undefined;
  at: number | undefined;
  writable: boolean;
}

export class MemoryModel {
  /** By name, the oldest first. */
  readonly regions = new Map<string, ModelRegion>();
  #ids = 0;
  /** Counts over all copies of a model: a discarded copy's numbers are not reused. */
  #stores: { next: number };

  constructor(stores: { next: number } = { next: PRIVATE }) {
    this.#stores = stores;
  }

  add(name: string, kind: MemoryKind, priority: number, length: number, home: number | undefined): void {
    const pages = Array.from({ length }, () => undefined);
    this.regions.set(name, { id: this.#ids++, name, kind, priority, pages, home, at: undefined, writable: true });
  }

  /** New private memory: a store of its own for each mapping. */
  newPrivateStore(): number {
    return this.#stores.next++;
  }

  /** @throws for a region that does not exist, or not any more */
  region(name: string): ModelRegion {
    const region = this.regions.get(name);
    if (region === undefined) throw new Error(`there is no ${name} in the model`);
    return region;
  }

  map(name: string, at: number, store: number, firstPage: number, count: number, writable: boolean): void {
    const { pages } = this.region(name);
    for (let n = 0; n < count; n++) pages[at + n] = { store, page: firstPage + n, writable };
  }

  unmap(name: string, at: number, count: number): void {
    this.region(name).pages.fill(undefined, at, at + count);
  }

  place(name: string, at: number | undefined, writable: boolean): void {
    const region = this.region(name);
    region.at = at;
    if (at !== undefined) region.writable = writable;
  }

  remove(name: string): void {
    this.region(name);
    this.regions.delete(name);
  }

  /** The pages of an address space of `size` pages: regions painted over one another. */
  flat(size: number): ModelFlat {
    const cells: (ModelCell | undefined)[] = Array.from({ length: size }, () => undefined);
    // The higher priority wins, and of equal ones the older.
    const active = [...this.regions.values()].sort((a, b) => a.priority - b.priority || b.id - a.id);
    for (const { at, pages, writable, kind, name, id } of active) {
      if (at === undefined) continue;
      for (const [n, page] of pages.entries()) {
        cells[at + n] =
          page === undefined
            ? undefined
            : { store: page.store, page: page.page, writable: page.writable && writable, kind, region: name, id };
      }
    }
    return cells;
  }

  clone(): MemoryModel {
    const copy = new MemoryModel(this.#stores);
    copy.#ids = this.#ids;
    for (const [name, region] of this.regions) copy.regions.set(name, { ...region, pages: region.pages.slice() });
    return copy;
  }
}

/** The byte that fills each page of each store. */
export class ModelContents {
  readonly #bytes = new Map<number, number[]>();

  byte({ store, page }: ModelPage): number {
    return this.#bytes.get(store)?.[page] ?? 0;
  }

  fill({ store, page }: Pick<ModelPage, 'store' | 'page'>, byte: number): void {
    const bytes = this.#bytes.get(store) ?? [];
    bytes[page] = byte;
    this.#bytes.set(store, bytes);
  }
}

/** Whether two cells show the same memory in the same way. */
export function sameCell(a: ModelCell | undefined, b: ModelCell | undefined): boolean {
  if (a === undefined || b === undefined) return a === b;
  return a.store === b.store && a.page === b.page && a.writable === b.writable && a.id === b.id;
}
