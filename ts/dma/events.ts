/**
 * Events for observers, on `node:diagnostics_channel`. Nothing is built or sent while nobody listens.
 */
import { channel } from 'node:diagnostics_channel';
import type { AddressRange } from '../address-range.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { MemoryKind } from './target.ts';

/** Message of the channels `peerdma:dma.map` and `peerdma:dma.unmap`: a target has mapped or unmapped a range. */
export interface DmaEvent {
  /** {@link GuestMemory.id} of the guest memory that the target follows. */
  readonly memory: number;
  /** Name of the target. */
  readonly target: string;
  /** Guest-physical addresses, which are the IOVAs. */
  readonly range: AddressRange;
  /** Of the region. */
  readonly kind: MemoryKind;
  /** Of the region. */
  readonly name: string;
  /** Whether the device may write. */
  readonly writable: boolean;
}

/** Message of the channel `peerdma:memory.change`: the memory map has changed, and every target with it. */
export interface MemoryChangeEvent {
  /** {@link GuestMemory.id} of the guest memory that has changed. */
  readonly memory: number;
  /** What is no longer to be seen at its addresses. */
  readonly removed: readonly AddressRange[];
  /** What is to be seen from now on. */
  readonly added: readonly AddressRange[];
}

/**
 * What guest memory was asked to do: `change` regions, mappings or places; a target `join`s or `leave`s or is `closed`
 * with all its mappings; something happens to a `device` whose memory is mapped; everything is to `end`.
 */
export type MemoryAction = 'change' | 'join' | 'leave' | 'closed' | 'device' | 'end';

/**
 * Message of the channel `peerdma:memory.settled`: guest memory has done what it was asked or has failed at it, and is at
 * rest: {@link GuestMemory.inspect} shows what came of it. The next change begins after the subscribers have returned.
 */
export interface MemorySettledEvent {
  /** {@link GuestMemory.id} */
  readonly memory: number;
  /** What it was asked to do. */
  readonly action: MemoryAction;
  /** What was thrown, if it failed. */
  readonly error?: unknown;
}

/** Number of a guest memory that publishes nothing. @internal */
export const SILENT = -1;

const mapChannel = channel('peerdma:dma.map');
const unmapChannel = channel('peerdma:dma.unmap');
const changeChannel = channel('peerdma:memory.change');
const settledChannel = channel('peerdma:memory.settled');

function dmaEvent(memory: number, target: string, { range, kind, name, writable }: SubMapping): DmaEvent {
  return { memory, target, range, kind, name, writable };
}

/** @internal */
export function publishMap(memory: number, target: string, subs: readonly SubMapping[]): void {
  if (!mapChannel.hasSubscribers || memory === SILENT) return;
  for (const sub of subs) mapChannel.publish(dmaEvent(memory, target, sub));
}

/** @internal */
export function publishUnmap(memory: number, target: string, subs: readonly SubMapping[]): void {
  if (!unmapChannel.hasSubscribers || memory === SILENT) return;
  for (const sub of subs) unmapChannel.publish(dmaEvent(memory, target, sub));
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

/** Does something to guest memory, and publishes when it is done or has failed. @internal */
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
