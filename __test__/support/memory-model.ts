/**
 * Guest memory as a child would draw it: an array of pages for each region, and for each address the region that wins.
 * The property tests compare the real one with it.
 */
import type { MemoryKind } from '../../ts/index.ts';

/** What one page of a region shows. */
export interface ModelPage {
  readonly store: number;
  readonly page: number;
  readonly writable: boolean;
}

/** What is to be seen at one page of the address space. */
export interface ModelCell extends ModelPage {
  readonly kind: MemoryKind;
  readonly region: string;
}

interface ModelRegion {
  readonly name: string;
  readonly kind: MemoryKind;
  readonly priority: number;
  readonly pages: (ModelPage | undefined)[];
  at: number | undefined;
  writable: boolean;
  removed: boolean;
}

export class MemoryModel {
  /** The oldest first. */
  readonly regions: ModelRegion[] = [];
  /** First byte of each page of each store. */
  readonly contents = new Map<number, number[]>();

  addRegion(name: string, kind: MemoryKind, priority: number, length: number): void {
    const pages = Array.from({ length }, () => undefined);
    this.regions.push({ name, kind, priority, pages, at: undefined, writable: true, removed: false });
  }

  map(index: number, at: number, store: number, firstPage: number, count: number, writable: boolean): void {
    const { pages } = this.#region(index);
    for (let n = 0; n < count; n++) pages[at + n] = { store, page: firstPage + n, writable };
  }

  unmap(index: number, at: number, count: number): void {
    this.#region(index).pages.fill(undefined, at, at + count);
  }

  place(index: number, at: number | undefined, writable: boolean): void {
    const region = this.#region(index);
    region.at = at;
    if (at !== undefined) region.writable = writable;
  }

  remove(index: number): void {
    const region = this.#region(index);
    region.at = undefined;
    region.removed = true;
  }

  /** What is to be seen at each page of the address space, by looking at every region. */
  flat(size: number): (ModelCell | undefined)[] {
    return Array.from({ length: size }, (_, address) => {
      let winner: ModelRegion | undefined;
      for (const region of this.regions) {
        if (region.at === undefined || address < region.at || address >= region.at + region.pages.length) continue;
        if (winner === undefined || region.priority > winner.priority) winner = region;
      }
      const page = winner?.pages[address - (winner.at ?? 0)];
      if (winner === undefined || page === undefined) return undefined;
      return { ...page, writable: page.writable && winner.writable, kind: winner.kind, region: winner.name };
    });
  }

  /** The byte that fills a page. */
  byte({ store, page }: ModelPage): number {
    return this.contents.get(store)?.[page] ?? 0;
  }

  fill({ store, page }: ModelPage, byte: number): void {
    const bytes = this.contents.get(store) ?? [];
    bytes[page] = byte;
    this.contents.set(store, bytes);
  }

  clone(): MemoryModel {
    const copy = new MemoryModel();
    copy.regions.push(...this.regions.map((region) => ({ ...region, pages: region.pages.slice() })));
    for (const [store, bytes] of this.contents) copy.contents.set(store, bytes.slice());
    return copy;
  }

  #region(index: number): ModelRegion {
    const region = this.regions[index];
    if (region === undefined) throw new Error(`there is no region ${index} in the model`);
    return region;
  }
}
