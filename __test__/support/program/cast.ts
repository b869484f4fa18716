/**
 * The targets of a random program: one of each kind.
 */
import {
  type AcceptedMemory,
  type AddressRange,
  type DmaMapRequest,
  type DmaTarget,
  PeerDmaError,
} from '../../../ts/index.ts';
import { type IommuRulesName, SimulatedIommu } from '../../../ts/testing.ts';
import { BatchRecordingTarget, type Call, RecordingTarget } from '../recording-target.ts';
import type { FaultInjector } from './faults.ts';

/** A target with visible mappings. */
export interface CastMember extends DmaTarget {
  readonly needsVa: boolean | 'private';
  readonly accepts: AcceptedMemory;
  readonly breaches: readonly string[];
  held(): DmaMapRequest[];
  /** Closes it with all its mappings, like a container. */
  closeWithMappings(): void;
}

/** A simulated IOMMU that fails on demand and records its calls. */
class WatchedIommu extends SimulatedIommu implements CastMember {
  readonly accepts: AcceptedMemory = {};
  readonly breaches: string[] = [];
  readonly #judge: (call: Call) => unknown;
  readonly #held = new Map<bigint, DmaMapRequest>();

  constructor(name: string, rules: IommuRulesName, judge: (call: Call) => unknown) {
    super({ name, rules });
    this.#judge = judge;
  }

  override mapDma(request: DmaMapRequest): void {
    this.#ask({ op: 'map', range: request.range, request });
    super.mapDma(request);
    this.#held.set(request.range.start, request);
  }

  override mapDmaBatch(requests: readonly DmaMapRequest[]): void {
    const done: DmaMapRequest[] = [];
    try {
      for (const request of requests) {
        this.mapDma(request);
        done.push(request);
      }
    } catch (error) {
      for (const { range } of done) this.#drop(range);
      throw error;
    }
  }

  override unmapDma(range: AddressRange): void {
    const request = this.#held.get(range.start);
    if (request === undefined || !request.range.equals(range)) this.breaches.push(`unmap ${range} was not mapped so`);
    this.#ask({ op: 'unmap', range, request });
    this.#drop(range);
  }

  held(): DmaMapRequest[] {
    return [...this.#held.values()];
  }

  closeWithMappings(): void {
    for (const { range } of this.held()) this.#drop(range);
  }

  #drop(range: AddressRange): void {
    super.unmapDma(range);
    this.#held.delete(range.start);
  }

  #ask(call: Call): void {
    const refusal = this.#judge(call);
    if (refusal !== undefined) throw refusal;
  }
}

export const CAST_NAMES = ['iommu', 'iommufd', 'plain', 'batch', 'slow', 'files'] as const;
export type CastName = (typeof CAST_NAMES)[number];

/** The kinds of calls of each target that can fail. */
export function callsOf(name: CastName): readonly string[] {
  return name === 'batch' ? ['map', 'unmap', 'take back'] : ['map', 'unmap'];
}

/** New targets that ask the injector at each call. */
export function makeCast(faults: FaultInjector): Readonly<Record<CastName, CastMember>> {
  const cast = {
    iommu: new WatchedIommu('iommu', 'type1v2', (call) => faults.judge('iommu', call)),
    iommufd: new WatchedIommu('iommufd', 'iommufd', (call) => faults.judge('iommufd', call)),
    plain: new RecordingTarget({ name: 'plain' }),
    batch: new BatchRecordingTarget({ name: 'batch', needsVa: true, async: true }),
    slow: new RecordingTarget({ name: 'slow', needsVa: true, async: true }),
    files: new RecordingTarget({ name: 'files', accepts: { backing: 'file' }, async: true }),
  };
  for (const target of [cast.plain, cast.batch, cast.slow, cast.files]) {
    target.judge = (call) => faults.judge(target.name, call);
  }
  return cast;
}

/** The error of the package for a thrown value. */
export function codeOf(thrown: unknown): string {
  return thrown instanceof PeerDmaError ? thrown.code : `no PeerDmaError but ${String(thrown)}`;
}
