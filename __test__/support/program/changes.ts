/**
 * Operations that change the memory map.
 */
import { AddressRange, type MemoryKind } from '../../../ts/index.ts';
import type { MemoryModel } from '../memory-model.ts';
import { at, pages as pagesOf } from '../pages.ts';
import { mode } from '../recording-target.ts';
import { domainOf } from './domains.ts';
import { Change, type Effect, FILE_PAGES, type Pages, SIZE } from './operation.ts';
import type { World } from './world.ts';

/** The memory of a mapping: pages of a file from `page` on, or private memory. */
export interface Contents {
  readonly file: number | 'private';
  readonly page: number;
  readonly writable: boolean;
}

function show({ file, page, writable }: Contents): string {
  return `${file === 'private' ? 'private memory' : `file${file}+${page}`} ${mode(writable)}`;
}

/** The part within a region of `length` pages, and within the file. */
function cut(length: number, { at: first, count }: Pages, contents?: Contents): Pages {
  const from = first % length;
  const most = contents === undefined || contents.file === 'private' ? length : FILE_PAGES - contents.page;
  return { at: from, count: Math.min(count, length - from, most) };
}

function mapInModel(model: MemoryModel, name: string, where: Pages, contents: Contents): void {
  const isPrivate = contents.file === 'private';
  const store = contents.file === 'private' ? model.newPrivateStore() : contents.file;
  model.map(name, where.at, store, isPrivate ? 0 : contents.page, where.count, contents.writable);
}

async function mapInWorld(world: World, name: string, where: Pages, contents: Contents): Promise<void> {
  const { writable } = contents;
  const backing = world.backing(contents.file, contents.page);
  const { region, window } = world.place(name);
  if (window === undefined) await region.addMapping({ range: pagesOf(where.at, where.count), backing, writable });
  else await window.addMapping({ range: AddressRange.of(at(where.at), at(where.count)), backing, writable });
}

/** A new region or window, inactive; optionally with contents from its start on. */
export class Add extends Change {
  /** The address of a region; a window has no address yet. */
  readonly #region: { readonly kind: MemoryKind; readonly at: number; readonly priority: number } | undefined;
  readonly #count: number;
  readonly #contents: Contents | undefined;

  constructor(
    name: string,
    count: number,
    contents: Contents | undefined,
    region?: { readonly kind: MemoryKind; readonly at: number; readonly priority: number },
  ) {
    super(name);
    this.#region = region;
    this.#count = region === undefined ? count : Math.min(count, SIZE - region.at);
    this.#contents = contents;
  }

  override possible(world: World): boolean {
    return !world.model.regions.has(this.name);
  }

  override effect(model: MemoryModel): Effect {
    const next = model.clone();
    this.change(next);
    return { next, touched: [] };
  }

  async start(world: World): Promise<void> {
    const { memory } = world;
    const { name } = this;
    if (this.#region === undefined) {
      const window = memory.newDeviceMemory({ name, length: at(this.#count), peerToPeerDomain: domainOf(name) });
      await window.unmapFromGuest(); // changes nothing, but completes after the window is created
      world.places.set(name, { window, count: this.#count });
    } else {
      const { kind, priority, at: first } = this.#region;
      const range = world.range({ at: first, count: this.#count });
      const region = await memory.regions.addRegion({ name, range, kind, priority });
      world.places.set(name, { region, at: first, count: this.#count });
    }
    if (this.#contents !== undefined) await mapInWorld(world, name, this.#filled(this.#contents), this.#contents);
  }

  protected change(model: MemoryModel): undefined {
    const { kind, priority, at: home } = this.#region ?? { kind: 'device' as const, priority: 0, at: undefined };
    model.add(this.name, kind, priority, this.#count, home);
    if (this.#contents !== undefined) mapInModel(model, this.name, this.#filled(this.#contents), this.#contents);
  }

  #filled(contents: Contents): Pages {
    return cut(this.#count, { at: 0, count: this.#count }, contents);
  }

  override toString(): string {
    const of = this.#contents === undefined ? '' : ` of ${show(this.#contents)}`;
    if (this.#region === undefined) return `new window ${this.name}, ${this.#count} pages${of}`;
    const { kind, at: first, priority } = this.#region;
    return `add ${kind} ${this.name} at ${first}..${first + this.#count}, priority ${priority}${of}`;
  }
}

/** Adds memory to a region. */
export class AddMapping extends Change {
  readonly #where: Pages;
  readonly #contents: Contents;

  constructor(name: string, where: Pages, contents: Contents) {
    super(name);
    this.#where = where;
    this.#contents = contents;
  }

  async start(world: World): Promise<void> {
    await mapInWorld(world, this.name, cut(world.place(this.name).count, this.#where, this.#contents), this.#contents);
  }

  protected change(model: MemoryModel): Pages {
    const where = cut(model.region(this.name).pages.length, this.#where, this.#contents);
    mapInModel(model, this.name, where, this.#contents);
    return where;
  }

  override toString(): string {
    return `show ${show(this.#contents)} in ${this.name} from page ${this.#where.at} on, ${this.#where.count} pages`;
  }
}

/** Removes memory from a region. */
export class RemoveMappings extends Change {
  readonly #where: Pages;

  constructor(name: string, where: Pages) {
    super(name);
    this.#where = where;
  }

  async start(world: World): Promise<void> {
    const { region, window, count } = world.place(this.name);
    const where = cut(count, this.#where);
    if (window === undefined) await region.removeMappings(pagesOf(where.at, where.count));
    else await window.removeMappings(AddressRange.of(at(where.at), at(where.count)));
  }

  protected change(model: MemoryModel): Pages {
    const region = model.region(this.name);
    const where = cut(region.pages.length, this.#where);
    const hit = region.pages.slice(where.at, where.at + where.count).some((page) => page !== undefined);
    model.unmap(this.name, where.at, where.count);
    return hit ? where : { at: where.at, count: 0 };
  }

  override toString(): string {
    return `remove ${this.#where.count} pages of ${this.name} from page ${this.#where.at} on`;
  }
}

/** Activates a region in its place, or maps or moves a window to an address. */
export class Place extends Change {
  readonly #to: number;
  readonly #writable: boolean;

  /** @param to page of a window; a region has its own address */
  constructor(name: string, to: number, writable: boolean) {
    super(name);
    this.#to = to;
    this.#writable = writable;
  }

  async start(world: World): Promise<void> {
    const { region, window, count } = world.place(this.name);
    const writable = this.#writable;
    if (window === undefined) await region.mapToGuest({ writable });
    else await window.mapToGuest(world.range({ at: this.#within(count), count }).start, { writable });
  }

  protected change(model: MemoryModel): undefined {
    const region = model.region(this.name);
    model.place(this.name, region.home ?? this.#within(region.pages.length), this.#writable);
  }

  /** Not past the end of the address space. */
  #within(count: number): number {
    return this.#to % (SIZE - count + 1);
  }

  override toString(): string {
    const what = this.name.startsWith('w') ? `move ${this.name} to ${this.#to}` : `map ${this.name}`;
    return `${what}${this.#writable ? '' : ' ro'}`;
  }
}

/** Removes a region or window from the memory map. */
export class Unplace extends Change {
  async start(world: World): Promise<void> {
    const { region, window } = world.place(this.name);
    if (window === undefined) await region.unmapFromGuest();
    else await window.unmapFromGuest();
  }

  protected change(model: MemoryModel): undefined {
    model.place(this.name, undefined, true);
  }

  override toString(): string {
    return `unmap ${this.name}`;
  }
}

/** Removes a region or window permanently. */
export class Remove extends Change {
  async start(world: World): Promise<void> {
    const { region, window } = world.place(this.name);
    if (window === undefined) await region.remove();
    else await window.remove();
  }

  protected change(model: MemoryModel): undefined {
    model.remove(this.name);
  }

  override toString(): string {
    return `remove ${this.name}`;
  }
}
