/**
 * Events on `node:diagnostics_channel`. A channel without subscribers costs nothing.
 */
import { type Channel, channel } from 'node:diagnostics_channel';
import type { AddressRange } from '../address-range.ts';
import { Slices } from '../slices.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { MemoryKind } from './target.ts';

/** The message of `peerdma:dma.map` and `peerdma:dma.unmap`: a target has mapped or unmapped a range. */
export interface DmaEvent {
  /** {@link GuestMemory.id} of the guest memory that the target has joined. */
  readonly memory: number;
  /** Name of the target. */
  readonly target: string;
  /** Guest-physical addresses, which are the IOVAs. */
  readonly range: AddressRange;
  /** Of the region. */
  readonly kind: MemoryKind;
  /** Name of the region. */
  readonly region: string;
  /** Whether the device may write. */
  readonly writable: boolean;
}

/** The message of `peerdma:memory.change`: the memory map has changed, and every target with it. */
export interface MemoryChangeEvent {
  /** {@link GuestMemory.id} of the guest memory that has changed. */
  readonly memory: number;
  /** Ranges of the removed sub-mappings. */
  readonly removed: readonly AddressRange[];
  /** Ranges of the added sub-mappings. */
  readonly added: readonly AddressRange[];
}

/**
 * The kind of an operation of guest memory.
 *
 * - `change`: regions, mappings or addresses change
 * - `join`: a target joins
 * - `leave`: a target leaves
 * - `close-target`: a target is closed with all its mappings
 * - `remap`: device memory is mapped again, after a reset or a change of its device's state, or by `refresh()`
 * - `close`: guest memory is closed
 */
export type MemoryAction = 'change' | 'join' | 'leave' | 'close-target' | 'remap' | 'close';

/**
 * The message of `peerdma:memory.settled`: an operation of guest memory has succeeded or failed.
 *
 * {@link GuestMemory.inspect} returns the resulting state. The next change begins after the subscribers have returned.
 */
export interface MemorySettledEvent {
  /** {@link GuestMemory.id} */
  readonly memory: number;
  /** The kind of the operation. */
  readonly action: MemoryAction;
  /** The error that was thrown, if it failed. */
  readonly error?: unknown;
}

/** In place of {@link GuestMemory.id}: publishes nothing. @internal */
export const SILENT = -1;

const mapChannel = channel('peerdma:dma.map');
const unmapChannel = channel('peerdma:dma.unmap');
const changeChannel = channel('peerdma:memory.change');
const settledChannel = channel('peerdma:memory.settled');

function dmaEvent(memory: number, target: string, { range, kind, name, writable }: SubMapping): DmaEvent {
  return { memory, target, range, kind, region: name, writable };
}

/** Publishes many events with turns of the event loop in between. @internal */
export function publishMap(memory: number, target: string, subs: readonly SubMapping[]): void | Promise<void> {
  return publishEach(mapChannel, memory, target, subs);
}

/** As {@link publishMap}. @internal */
export function publishUnmap(memory: number, target: string, subs: readonly SubMapping[]): void | Promise<void> {
  return publishEach(unmapChannel, memory, target, subs);
}

function publishEach(to: Channel, memory: number, target: string, subs: readonly SubMapping[]): void | Promise<void> {
  if (!to.hasSubscribers || memory === SILENT) return undefined;
  return new Slices().forEach(subs, (sub) => to.publish(dmaEvent(memory, target, sub)));
}

/** @internal */
export function publishChange(memory: number, removed: readonly SubMapping[], added: readonly SubMapping[]): void {
  if (!changeChannel.hasSubscribers || memory === SILENT) return;
  const event: MemoryChangeEvent = {
    memory,
    removed: removed.map((sub) => sub.range),
    added: added.map((sub) => sub.range),
  };
  changeChannel.publish(event);
}

/** Runs an operation of guest memory and publishes its result when it succeeds or fails. @internal */
export async function thenSettled<T>(memory: number, action: MemoryAction, act: () => Promise<T>): Promise<T> {
  try {
    const result = await act();
    publishSettled({ memory, action });
    return result;
  } catch (error) {
    publishSettled({ memory, action, error });
    throw error;
  }
}

function publishSettled(event: MemorySettledEvent): void {
  if (settledChannel.hasSubscribers && event.memory !== SILENT) settledChannel.publish(event);
}
