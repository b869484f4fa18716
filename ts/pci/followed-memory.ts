/**
 * Which guest memory the IOMMU of a function follows, where that is known: a guest has to see the function in that one.
 */
import type { GuestMemory } from '../guest/guest-memory.ts';
import type { PhysicalFunction } from './physical-function.ts';

const followed = new WeakMap<PhysicalFunction, GuestMemory>();

/** @internal */
export function declareFollowed(device: PhysicalFunction, memory: GuestMemory): void {
  followed.set(device, memory);
}

/** `undefined` for a simulated function, which brings its own IOMMU. @internal */
export function followedBy(device: PhysicalFunction): GuestMemory | undefined {
  return followed.get(device);
}
