/**
 * A DMA target that records its calls, checks the contract of guest memory, and fails on demand.
 */
import { fstatSync } from 'node:fs';
import {
  type AcceptedMemory,
  type AddressRange,
  type DmaMapRequest,
  type DmaTarget,
  PeerDmaError,
} from '../../ts/index.ts';

/** A call before it takes effect. */
export interface Call {
  /** `take back`: a failing batch unmaps its first mappings. */
  readonly op: 'map' | 'unmap' | 'take back';
  readonly range: AddressRange;
  /** The request of a map; otherwise the request that mapped the range. */
  readonly request: DmaMapRequest | undefined;
}

export interface RecordingTargetOptions {
  readonly name?: string;
  readonly needsVa?: boolean | 'private';
  readonly accepts?: AcceptedMemory;
  readonly mapsForProcessors?: boolean;
  /** Returns promises instead of completing at once. */
  readonly async?: boolean;
  /** The list of calls, which others may share. */
  readonly calls?: string[];
}

/** Records the memory that it holds. */
export class RecordingTarget implements DmaTarget {
  readonly name: string;
  readonly needsVa: boolean | 'private';
  readonly accepts: AcceptedMemory;
  readonly mapsForProcessors: boolean;
  /** Such as `map 0x0..0x1000 rw`, `unmap 0x0..0x1000`; failed calls end in ` refused`. */
  readonly calls: string[];
  /** Violations of the contract: overlapping maps, unmaps of other ranges than mapped, missing leases. */
  readonly breaches: string[] = [];
  /** Called before an operation; its result is thrown. */
  judge: (call: Call) => unknown = () => undefined;
  readonly #async: boolean;
  readonly #held = new Map<bigint, DmaMapRequest>();

  constructor(options: RecordingTargetOptions = {}) {
    this.name = options.name ?? 'recorder';
    this.needsVa = options.needsVa ?? false;
    this.accepts = options.accepts ?? {};
    this.mapsForProcessors = options.mapsForProcessors ?? false;
    this.calls = options.calls ?? [];
    this.#async = options.async ?? false;
  }

  mapDma(request: DmaMapRequest): void | Promise<void> {
    return this.answer(() => this.take(request));
  }

  unmapDma(range: AddressRange): void | Promise<void> {
    return this.answer(() => this.#drop(range));
  }

  /** The held requests, in order of address. */
  held(): DmaMapRequest[] {
    return [...this.#held.values()].sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
  }

  /** The held memory, such as `0x0..0x1000 rw ram0`. */
  heldText(): string[] {
    return this.held().map(({ range, writable, name }) => `${range} ${mode(writable)} ${name}`);
  }

  /** The calls since the last time. */
  takeCalls(): string[] {
    return this.calls.splice(0);
  }

  /** Closes it like a container: all mappings are removed without a call. */
  closeWithMappings(): void {
    this.#held.clear();
  }

  protected answer(act: () => void): void | Promise<void> {
    if (!this.#async) return act();
    return new Promise((resolve) => setImmediate(resolve)).then(act);
  }

  protected take(request: DmaMapRequest): void {
    const { range, writable } = request;
    this.#record(`map ${range} ${mode(writable)}`, { op: 'map', range, request });
    const other = this.held().find((held) => held.range.overlaps(range));
    if (other !== undefined) this.breaches.push(`map ${range} overlaps ${other.range}`);
    if ((request.hostMemory !== undefined) !== usesHostMemory(this, request.backing === 'private')) {
      this.breaches.push(`map ${range}: needsVa is not heeded`);
    }
    if (!accepts(this.accepts, request)) this.breaches.push(`map ${range}: accepts is not heeded`);
    if (request.hostMemory?.length !== undefined && request.hostMemory.length !== range.length) {
      this.breaches.push(`map ${range}: host memory of another length`);
    }
    request.hostMemory?.read(0n, 1);
    this.#held.set(range.start, request);
  }

  protected forget(range: AddressRange): void {
    this.#held.delete(range.start);
  }

  #drop(range: AddressRange): void {
    const request = this.#held.get(range.start);
    this.#record(`unmap ${range}`, { op: 'unmap', range, request });
    if (request === undefined || !request.range.equals(range)) this.breaches.push(`unmap ${range} was not mapped so`);
    else request.hostMemory?.read(0n, 1); // the memory is leased until now
    this.forget(range);
  }

  #record(text: string, call: Call): void {
    const refusal = this.judge(call);
    this.calls.push(refusal === undefined ? text : `${text} refused`);
    if (refusal !== undefined) throw refusal;
  }
}

/** {@link RecordingTarget} that takes batches, which succeed or fail as a whole. */
export class BatchRecordingTarget extends RecordingTarget {
  mapDmaBatch(requests: readonly DmaMapRequest[]): void | Promise<void> {
    return this.answer(() => {
      this.calls.push(`batch of ${requests.length}`);
      const done: DmaMapRequest[] = [];
      try {
        for (const request of requests) {
          this.take(request);
          done.push(request);
        }
      } catch (error) {
        const kept = done.filter((request) => {
          const refusal = this.judge({ op: 'take back', range: request.range, request });
          if (refusal === undefined) this.forget(request.range);
          return refusal !== undefined;
        });
        if (kept.length === 0) throw error;
        throw new PeerDmaError('ERR_UNMAP_FAILED', `${this.name} cannot take back ${kept.length} of a batch`, {
          cause: error,
        });
      }
    });
  }
}

/**
 * Returns a judge that fails the `k`th call of that kind from now on (from 0), once.
 *
 * `hit` reports whether it did.
 */
export class RefuseAt {
  hit = false;
  #left: number;
  readonly #op: Call['op'];
  readonly #error: unknown;

  constructor(op: Call['op'], k: number, error: unknown = new Error(`refuses the ${op} number ${k}`)) {
    this.#op = op;
    this.#left = k;
    this.#error = error;
  }

  readonly judge = (call: Call): unknown => {
    if (call.op !== this.#op || this.#left-- !== 0) return undefined;
    this.hit = true;
    return this.#error;
  };
}

export const ACCEPT = (): unknown => undefined;

/** Whether a target receives memory by host address. */
export function usesHostMemory({ needsVa }: Pick<DmaTarget, 'needsVa'>, isPrivate: boolean): boolean {
  return needsVa === true || (needsVa === 'private' && isPrivate);
}

/** Whether a target with that trait may be called for a request. */
function accepts({ kinds = 'both', backing = 'any' }: AcceptedMemory, request: DmaMapRequest): boolean {
  if (kinds !== 'both' && kinds !== request.kind) return false;
  if (backing === 'any') return true;
  if (request.backing === 'private') return false;
  return backing === 'file' || fstatSync(request.backing.file.fd).isFile();
}

export function mode(writable: boolean): string {
  return writable ? 'rw' : 'ro';
}
