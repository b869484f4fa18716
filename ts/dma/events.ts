/**
 * Events for observers, on `node:diagnostics_channel`. Nothing is built or sent while nobody listens.
 */
import { channel } from 'node:diagnostics_channel';
import type { AddressRange } from '../address-range.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { MemoryKind } from './target.ts';

/** Message of the channels `peerdma:dma.map` and `peerdma:dma.unmap`: a target has mapped or unmapped a range. */
export interface DmaEvent {
  readonly target: string;
  readonly range: AddressRange;
  readonly kind: MemoryKind;
  /** Of the region. */
  readonly name: string;
  readonly writable: boolean;
}

/** Message of the channel `peerdma:memory.change`: the memory map has changed, and every target with it. */
export interface MemoryChangeEvent {
  readonly removed: readonly AddressRange[];
  readonly added: readonly AddressRange[];
}

const mapChannel = channel('peerdma:dma.map');
const unmapChannel = channel('peerdma:dma.unmap');
const changeChannel = channel('peerdma:memory.change');

function dmaEvent(target: string, { range, kind, name, writable }: SubMapping): DmaEvent {
  return { target, range, kind, name, writable };
}

/** @internal */
export function publishMap(target: string, sub: SubMapping): void {
  if (mapChannel.hasSubscribers) mapChannel.publish(dmaEvent(target, sub));
}

/** @internal */
export function publishUnmap(target: string, sub: SubMapping): void {
  if (unmapChannel.hasSubscribers) unmapChannel.publish(dmaEvent(target, sub));
}

/** @internal */
export function publishChange(removed: readonly SubMapping[], added: readonly SubMapping[]): void {
  if (!changeChannel.hasSubscribers) return;
  const event: MemoryChangeEvent = {
    removed: removed.map((sub) => sub.range),
    added: added.map((sub) => sub.range),
  };
  changeChannel.publish(event);
}
