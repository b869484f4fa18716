/**
 * The interface between {@link DmaMapper} and its target. The target is a caller's {@link DmaTarget}, or an IOMMU
 * address space of the kernel.
 */
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import type { AcceptedMemory } from './accepted-memory.ts';
import type { CallGate } from './call-gate.ts';
import { rollbackFailed } from './mapping-error.ts';
import type { MappingFailure } from './mapping-failure.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { DmaTarget } from './target.ts';

/** The failure of {@link TargetPort.map}. @internal */
export interface MapFailure {
  readonly error: PeerDmaError;
  /** Mappings that the target made and could not unmap: it may still reach that memory. */
  readonly stillMapped: readonly MappingFailure[];
}

/** A failure and its rollback. @param stillMapped mappings that the rollback could not unmap @internal */
export function rolledBack(failure: MapFailure, stillMapped: readonly MappingFailure[]): MapFailure {
  if (stillMapped.length === 0) return failure;
  const problems = stillMapped.map(({ error }) => error);
  return { error: rollbackFailed(failure.error, problems), stillMapped: [...failure.stillMapped, ...stillMapped] };
}

/** `undefined` if all are mapped. @internal */
export type MapResult = MapFailure | undefined;

/** Options of {@link TargetPort.unmap}. @internal */
export interface UnmapOptions {
  /** Whether to unmap the rest after a failure. */
  readonly afterFailure: 'stop' | 'continue';
}

/** The mappings that could not be unmapped. @internal */
export type UnmapResult = readonly MappingFailure[];

/**
 * Maps sub-mappings, each exactly at its range. {@link DmaMapper} makes one call at a time. After `calls.close()`, a
 * port makes no further calls of its target and reports success.
 *
 * @internal
 */
export interface TargetPort {
  /** The object that joined, as passed to {@link DmaMapperClient.targetClosed}. */
  readonly target: object;
  /** Name in errors, events and snapshots. */
  readonly name: string;
  /** As {@link DmaTarget.needsVa}. */
  readonly needsVa: NonNullable<DmaTarget['needsVa']>;
  /** As {@link DmaTarget.accepts}. */
  readonly accepts: Required<AcceptedMemory>;
  /** Whether {@link TargetPort.map} faults in the host memory that it maps. */
  readonly faultsIn: boolean;
  readonly calls: CallGate;
  /** Whether it maps memory for the processors of the guest, after all IOMMUs. */
  readonly mapsForProcessors?: boolean;
  /** As {@link DmaTarget.isRevoked}. */
  isRevoked?: ((range: AddressRange) => boolean) | undefined;
  /** As {@link DmaTarget.iovaRanges}; `undefined` when the target does not report them. */
  iovaRanges(): readonly AddressRange[] | undefined;
  /**
   * Maps all of these or none; a large number in batches. Leases the host memory that {@link TargetPort.needsVa}
   * requires.
   *
   * @param va returns the host view of guest memory, which it makes on first use
   */
  map(subs: readonly SubMapping[], va: () => VaMapper): MapResult | Promise<MapResult>;
  /**
   * Unmaps these, in this order, and releases their host memory; a large number in batches.
   *
   * @returns those that could not be unmapped; their host memory is still leased
   */
  unmap(subs: readonly SubMapping[], options: UnmapOptions): UnmapResult | Promise<UnmapResult>;
  /** Keeps the processors of the guest from executing it, until the function that it returns is called. */
  suspend?(): (() => void) | Promise<() => void>;
  /** Releases all host memory without calling the target, whose mappings ended with it. */
  abandon(): void | Promise<void>;
}
