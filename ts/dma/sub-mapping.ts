/**
 * One entry of the flat map: memory that no region of higher priority covers.
 */
import { requestBackingOf } from '../memory/backing.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import type { VaMapping } from '../memory/va-mapper.ts';
import type { DeviceAccess } from './device-access.ts';
import type { DmaMapRequest, MemoryKind } from './target.ts';

/** Writable if both the mapping and the region are. @internal */
export interface SubMapping extends VaMapping {
  readonly kind: MemoryKind;
  /** Name of its region. */
  readonly name: string;
  readonly regionId: number;
  /** The access policy of device memory. Default: {@link FULL_ACCESS} */
  readonly access?: DeviceAccess | undefined;
}

/** @internal */
export function mapRequest(sub: SubMapping, hostMemory: HostMemory | undefined): DmaMapRequest {
  const { range, memory, writable, kind, name } = sub;
  const backing = requestBackingOf(memory);
  return hostMemory === undefined
    ? { range, backing, writable, kind, name }
    : { range, hostMemory, backing, writable, kind, name };
}

/**
 * Whether its memory is faulted in before a target maps it.
 *
 * Private memory is, even as device memory. For a read-only mapping, Linux before 6.2 (commit 84209e87c696) would pin
 * the shared page of zeros in place of a page that was not written yet. The device would read zeros from then on. Files
 * of device memory are not faulted in: only the target can detect whether the device's memory is accessible.
 *
 * @internal
 */
export function isFaultedIn({ kind, memory }: SubMapping): boolean {
  return kind === 'ram' || memory.private !== undefined;
}
