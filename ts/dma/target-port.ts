/**
 * The seam between {@link DmaMapper} and what maps memory for devices: a {@link DmaTarget} of a caller, or an IOMMU
 * address space of the kernel.
 */
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import type { VaMapper } from '../memory/va-mapper.ts';
import type { CallGate } from './call-gate.ts';
import { rollbackFailed } from './mapping-error.ts';
import type { MappingFailure } from './mapping-failure.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { DmaTarget } from './target.ts';

/** Why a batch was not mapped. @internal */
export interface BatchFailure {
  readonly error: PeerDmaError;
  /** What the target has mapped for the batch and could not unmap again: it may still reach that memory. */
  readonly stuck: readonly MappingFailure[];
}

/** A failure after the rollback of what was mapped before it. @param stuck what could not be unmapped @internal */
export function rolledBack(failure: BatchFailure, stuck: readonly MappingFailure[]): BatchFailure {
  if (stuck.length === 0) return failure;
  const problems = stuck.map(({ error }) => error);
  return { error: rollbackFailed(failure.error, problems), stuck: [...failure.stuck, ...stuck] };
}

/** `undefined` when all are mapped. @internal */
export type MapResult = BatchFailure | undefined;

/** What is still mapped. @internal */
export type UnmapResult = readonly MappingFailure[];

/**
 * Maps sub-mappings, each exactly at its range. {@link DmaMapper} makes one call at a time. After `calls.close()` a
 * port makes no further calls of its target, and reports success.
 *
 * @internal
 */
export interface TargetPort {
  /** Who joined: {@link DmaMapperClient.targetClosed} names it. */
  readonly target: object;
  /** For messages, events and snapshots. */
  readonly name: string;
  /** As {@link DmaTarget.needsVa}. */
  readonly needsVa: NonNullable<DmaTarget['needsVa']>;
  /** As {@link DmaTarget.needsFile}. */
  readonly needsFile: boolean;
  /** Whether {@link TargetPort.map} faults in the host memory that it maps. */
  readonly faultsIn: boolean;
  readonly calls: CallGate;
  /** As {@link DmaTarget.isRevoked}. */
  isRevoked?: ((range: AddressRange) => boolean) | undefined;
  /** As {@link DmaTarget.iovaRanges}; `undefined` when the target does not report them. */
  iovaRanges(): readonly AddressRange[] | undefined;
  /**
   * Maps all of these or none; many of them in parts. Their host memory is held from then on where {@link TargetPort.needsVa} says so.
   *
   * @param va the host view of guest memory, made when there is none yet
   */
  map(subs: readonly SubMapping[], va: () => VaMapper): MapResult | Promise<MapResult>;
  /**
   * Unmaps these, in this order, and releases their host memory; many of them in parts.
   *
   * @param all whether to go on after one that could not be unmapped
   * @returns those that could not be unmapped; their host memory is still held
   */
  unmap(subs: readonly SubMapping[], all: boolean): UnmapResult | Promise<UnmapResult>;
  /** Releases all host memory without unmapping anything: the target and its mappings are gone. */
  abandon(): void;
}
