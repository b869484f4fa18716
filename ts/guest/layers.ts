/**
 * The regions of a snapshot at an address, by precedence, and the memory there.
 */
import type { SeenMemory } from './explain.ts';
import type { MemorySnapshot, RegionSnapshot } from './inspect.ts';
import type { MemoryKind } from '../dma/target.ts';

/** A region at an address. */
export interface Layer {
  /** Of the region. */
  readonly name: string;
  /** Of the region. */
  readonly kind: MemoryKind;
  /** Of the region: the highest wins, and of equal ones the oldest. */
  readonly priority: number;
  /** Guest-physical addresses of all of it. */
  readonly start: string;
  /** One past the last address of all of it. */
  readonly end: string;
  /** Whether it has memory at the address. */
  readonly hasMemory: boolean;
  /** Name of the region that hides it there. */
  readonly hiddenBy?: string;
}

/** The active regions at an address, the winner first. @internal */
export function layersAt({ regions }: MemorySnapshot, address: bigint): Layer[] {
  const there = byPrecedenceIn(regions).filter(({ range }) => range !== undefined && holds(range, address));
  const [top] = there;
  return there.map((region): Layer => {
    const { name, kind, priority, range = { start: '0x0', end: '0x0' }, mappings } = region;
    const offset = address - BigInt(range.start);
    return {
      name,
      kind,
      priority,
      start: range.start,
      end: range.end,
      hasMemory: mappings.some((mapping) => holds(mapping, offset)),
      ...(region === top || top === undefined ? {} : { hiddenBy: top.name }),
    };
  });
}

/** Regions by precedence: the higher priority, then the older. @internal */
export function byPrecedenceIn(regions: readonly RegionSnapshot[]): RegionSnapshot[] {
  return [...regions].sort((a, b) => b.priority - a.priority); // they come the oldest first, and sorting is stable
}

/** The memory at an address. @internal */
export function memoryAt({ flat }: MemorySnapshot, address: bigint): SeenMemory | undefined {
  const sub = flat.find((one) => holds(one, address));
  if (sub === undefined) return undefined;
  return { ...sub, backing: backingAt(sub.backing, address - BigInt(sub.start)) };
}

/** A backing, `by` bytes further on. @internal */
export function backingAt(backing: string, by: bigint): string {
  const [, name, offset] = /^(.*)\+(0x[0-9a-f]+)$/s.exec(backing) ?? [];
  return name === undefined || offset === undefined ? backing : `${name}+0x${(BigInt(offset) + by).toString(16)}`;
}

/** Whether an address is within a range. @internal */
export function holds({ start, end }: { readonly start: string; readonly end: string }, address: bigint): boolean {
  return BigInt(start) <= address && address < BigInt(end);
}
