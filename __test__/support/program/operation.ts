/**
 * The parts of a random program: calls of guest memory, each with its effect on the model. Regions and windows keep
 * their names (`r0`, `w1`), so that a program keeps its meaning when it shrinks.
 */
import type { MemoryModel } from '../memory-model.ts';
import type { World } from './world.ts';

/** Pages of the address space of a random program. */
export const SIZE = 32;
/** Pages of each file. */
export const FILE_PAGES = 12;
export const FILES = 3;

/** A range of pages: `at` the first, `count` of them. */
export interface Pages {
  readonly at: number;
  readonly count: number;
}

export interface Operation {
  readonly kind: 'change' | 'register' | 'unregister' | 'target closed';
  /** Whether its objects exist. */
  possible(world: World): boolean;
  /** Calls guest memory, without waiting. */
  start(world: World): Promise<unknown>;
  /** One line. */
  toString(): string;
}

/** The effect of a change on the memory map. */
export interface Effect {
  readonly next: MemoryModel;
  /** Pages of the address space that it affects, changed or not. */
  readonly touched: readonly Pages[];
}

/** An operation that changes the memory map through one region. */
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

  /** @returns `undefined` if the region has been removed */
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

  /** @returns the affected pages within the region; `undefined` for all of it and its address */
  protected abstract change(model: MemoryModel): Pages | undefined;
}

function placeOf(model: MemoryModel, name: string): Pages | undefined {
  const region = model.regions.get(name);
  return region?.at === undefined ? undefined : { at: region.at, count: region.pages.length };
}
