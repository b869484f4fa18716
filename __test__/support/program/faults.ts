/**
 * Faults of a random program. The n-th call of a kind, counted from the start of a command, fails on a target or in the
 * native core. One set for each worker.
 */
import { type DmaMapRequest, PeerDmaError } from '../../../ts/index.ts';
import { outOfMemory } from '../native-faults.ts';
import type { Call } from '../recording-target.ts';
import type { Pages } from './operation.ts';

export interface Fault {
  /** A target, `any` of them, or `native`. */
  readonly on: string;
  readonly op: string;
  /** From 1, counted for that target or for all. */
  readonly nth: number;
  /** All later ones fail too. */
  readonly onwards: boolean;
  /** The thrown value: a plain error, an error of the package with its own code, or no error object. */
  readonly how: 'error' | 'coded' | 'text';
}

/** A fault that occurred. */
export interface Hit {
  readonly on: string;
  readonly op: string;
  readonly call: Call | undefined;
  /** The pages of a native call. */
  readonly pages: readonly Pages[];
  /** The text of its error. */
  readonly code: string;
}

export function describeFault({ on, op, nth, onwards, how }: Fault): string {
  const thrown = how === 'error' ? '' : how === 'coded' ? ' with a code of its own' : ' with a bare string';
  const which = onwards
    ? nth === 1
      ? `every ${op}`
      : `every ${op} from the ${ordinal(nth)} on`
    : `the ${ordinal(nth)} ${op}`;
  const where = on === 'native' ? ' in the native core' : on === 'any' ? '' : ` on "${on}"`;
  return `${which}${where} fails${thrown}`;
}

function ordinal(n: number): string {
  return `${n}${['th', 'st', 'nd', 'rd'][n] ?? 'th'}`;
}

/** Makes faults happen. */
export class FaultInjector {
  #faults: readonly Fault[] = [];
  readonly #counts = new Map<string, number>();
  #hits: Hit[] = [];
  /** Requested maps since the faults were set, failed or not. */
  maps: { readonly on: string; readonly request: DmaMapRequest }[] = [];

  set(faults: readonly Fault[]): void {
    this.#faults = faults;
    this.#counts.clear();
    this.#hits = [];
    this.maps = [];
  }

  /** Ends the faults. @returns those that occurred, in order */
  clear(): Hit[] {
    this.#faults = [];
    return this.#hits;
  }

  /** The exception for a target's call, if it fails. */
  judge(on: string, call: Call): unknown {
    if (call.op === 'map' && call.request !== undefined) this.maps.push({ on, request: call.request });
    const fault = this.#due(on, call.op);
    if (fault === undefined) return undefined;
    const coded = fault.how === 'coded' && call.op === 'map';
    const code = coded ? 'ERR_IOVA_UNREACHABLE' : call.op === 'map' ? 'ERR_MAP_FAILED' : 'ERR_UNMAP_FAILED';
    this.#hits.push({ on, op: call.op, call, pages: [], code });
    const text = `the fault: ${call.op} ${call.range}`;
    if (fault.how === 'coded') return new PeerDmaError('ERR_IOVA_UNREACHABLE', text, { errno: 'EINVAL' });
    return fault.how === 'text' ? text : new Error(text);
  }

  /** Throws if a native call is to fail. */
  native(op: string, pages: readonly Pages[]): void {
    if (this.#due('native', op) === undefined) return;
    this.#hits.push({ on: 'native', op, call: undefined, pages, code: 'ERR_SYSTEM' });
    throw outOfMemory(op);
  }

  #due(on: string, op: string): Fault | undefined {
    if (this.#faults.length === 0) return undefined;
    const own = this.#count(`${on} ${op}`);
    const all = on === 'native' ? 0 : this.#count(`any ${op}`);
    return this.#faults.find((fault) => {
      if (fault.op !== op || (fault.on !== on && (fault.on !== 'any' || on === 'native'))) return false;
      const count = fault.on === 'any' ? all : own;
      return fault.onwards ? count >= fault.nth : count === fault.nth;
    });
  }

  #count(key: string): number {
    const count = (this.#counts.get(key) ?? 0) + 1;
    this.#counts.set(key, count);
    return count;
  }
}
