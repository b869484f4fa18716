/**
 * What a random program is made of: calls on guest memory, each with what it means to the model. Regions and windows go by
 * names that are theirs for good (`r0`, `w1`), so that a program that shrinks keeps its meaning.
 */
import type { MemoryModel } from '../memory-model.ts';
import type { World } from './world.ts';

/** Pages of the address space of a random program. */
export const SIZE = 32;
/** Pages of each file. */
export const FILE_PAGES = 12;
export const FILES = 3;

/** A stretch of pages: `at` the first, `count` of them. */
export interface Pages {
  readonly at: number;
  readonly count: number;
}

export interface Operation {
  readonly kind: 'change' | 'register' | 'unregister' | 'target closed';
  /** Whether there is what it is about. */
  possible(world: World): boolean;
  /** Calls guest memory, at once. */
  start(world: World): Promise<unknown>;
  /** One line. */
  toString(): string;
}

/** What a change does to the memory map. */
export interface Effect {
  readonly next: MemoryModel;
  /** Pages of the address space that it is about, whether they change or not. */
  readonly touched: readonly Pages[];
}

/** An operation that changes the memory map, by way of one region. */
export abstract class Change implements Operation {
  readonly kind = 'change';
  /** Of the region. */
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  possible(world: World): boolean {
    return world.places.has(this.name);
  }

  /** @returns `undefined` where the region has been removed */
  effect(model: MemoryModel): Effect | undefined {
    const next = model.clone();
    if (!next.regions.has(this.name)) return undefined;
    const before = placeOf(next, this.name);
    const inner = this.change(next);
    const after = placeOf(next, this.name);
    if (inner === undefined) return { next, touched: [before, after].filter((range) => range !== undefined) };
    return { next, touched: before === undefined ? [] : [{ at: before.at + inner.at, count: inner.count }] };
  }

  abstract start(world: World): Promise<unknown>;

  /** @returns the pages within the region that it is about; none where it is about all of the region and where that is */
  protected abstract change(model: MemoryModel): Pages | undefined;
}

function placeOf(model: MemoryModel, name: string): Pages | undefined {
  const region = model.regions.get(name);
  return region?.at === undefined ? undefined : { at: region.at, count: region.pages.length };
}
