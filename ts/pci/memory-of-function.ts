/**
 * The guest memory that the IOMMU of a function maps, if known.
 *
 * The function must be assigned in that guest memory.
 */
import type { GuestMemory } from '../guest/guest-memory.ts';
import type { PhysicalFunction } from './physical-function.ts';

const memories = new WeakMap<PhysicalFunction, GuestMemory>();

/** @internal */
export function recordMemoryOf(device: PhysicalFunction, memory: GuestMemory): void {
  memories.set(device, memory);
}

/** Returns `undefined` for a simulated function, whose IOMMU is part of its options. @internal */
export function recordedMemoryOf(device: PhysicalFunction): GuestMemory | undefined {
  return memories.get(device);
}
