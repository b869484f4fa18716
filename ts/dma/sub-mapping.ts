/**
 * One entry of the flat memory map: memory that wins at its addresses.
 */
import { requestBackingOf } from '../memory/backing.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import type { VaMapping } from '../memory/va-mapper.ts';
import type { DmaMapRequest, MemoryKind } from './target.ts';

/** `writable` is that of the mapping AND of the region. @internal */
export interface SubMapping extends VaMapping {
  readonly kind: MemoryKind;
  /** Of the region that shows it. */
  readonly name: string;
  readonly regionId: number;
}

/** @internal */
export function mapRequest(sub: SubMapping, hostMemory: HostMemory | undefined): DmaMapRequest {
  const { range, store, writable, kind, name } = sub;
  const backing = requestBackingOf(store);
  return hostMemory === undefined
    ? { range, backing, writable, kind, name }
    : { range, hostMemory, backing, writable, kind, name };
}

/**
 * Whether its memory is faulted in before a target maps it. Private memory of whatever kind is, as RAM is: a private
 * page that nobody has written yet would be pinned as the kernel's page of zeros where the device may only read it
 * (Linux before 6.2, commit 84209e87c696), and stay that for the device. A file of device memory is the device's;
 * whether it is there is for the target to find out.
 *
 * @internal
 */
export function isFaultedIn({ kind, store }: SubMapping): boolean {
  return kind === 'ram' || store.private !== undefined;
}
