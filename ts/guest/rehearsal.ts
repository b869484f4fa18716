/**
 * Moves a BAR before the first guest does. The engine compiles a function at its first call, which is most of the time
 * that the first move of a process takes.
 */
import { AddressRange } from '../address-range.ts';
import { CustomTarget } from '../dma/custom-target.ts';
import { SILENT } from '../dma/events.ts';
import { readPeerPolicy } from '../dma/peer-policy.ts';
import { readTarget } from '../dma/target-traits.ts';
import { hostPageSize } from '../memory/page-size.ts';
import { GuestAddressSpace } from './guest-address-space.ts';
import { DeviceMemory } from './device-memory.ts';

let rehearsed: Promise<void> | undefined;

/** Moves a BAR in an address space of its own, once in the life of the process. @internal */
export function rehearseMove(): Promise<void> {
  return (rehearsed ??= moveBar());
}

async function moveBar(): Promise<void> {
  const page = hostPageSize();
  const space = new GuestAddressSpace(32, SILENT);
  try {
    const target = readTarget({ name: 'rehearsal', needsVa: true, mapDma() {}, unmapDma() {} });
    await space.register(new CustomTarget(target), readPeerPolicy());
    const bar = new DeviceMemory(space, { name: 'rehearsal', length: page });
    await bar.addMapping({ range: AddressRange.of(0n, page), backing: 'private' });
    for (let place = 0n; place < 4n; place++) await bar.mapToGuest(place * page);
    await space.close();
  } catch {
    // The guest meets the same failure, and reports it.
  }
}
