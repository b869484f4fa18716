/**
 * Answers accesses to memory of the guest that has no memory slot.
 *
 * A processor met a change of the slot, wrote read-only memory, or reached a BAR that KVM could not map.
 */
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import type { MemoryHandler } from './handlers.ts';

/** Returns a function that finds the memory at an address. @internal */
export function mappedMemory(memory: GuestMemory): (gpa: bigint) => MemoryHandler | undefined {
  const space = guestAddressSpaceOf(memory);
  const ram: MemoryHandler = {
    read: (gpa, length) => memory.read(gpa, length),
    write: (gpa, bytes) => memory.write(gpa, bytes),
  };
  const device: MemoryHandler = {
    read: (gpa, length) => ifAccessible(() => memory.read(gpa, length)) ?? new Uint8Array(length).fill(0xff),
    write: (gpa, bytes) => ifAccessible(() => memory.write(gpa, bytes)),
  };
  const readOnly = (handler: MemoryHandler): MemoryHandler => ({ read: handler.read, write: () => {} });
  const handlers = { ram, device };
  const readOnlyHandlers = { ram: readOnly(ram), device: readOnly(device) };
  return (gpa) => {
    const sub = space.map.flat.at(gpa);
    return sub === undefined ? undefined : (sub.writable ? handlers : readOnlyHandlers)[sub.kind];
  };
}

/** Calls `act`; returns `undefined` if the device does not decode its memory. */
function ifAccessible<T>(act: () => T): T | undefined {
  try {
    return act();
  } catch {
    return undefined;
  }
}
