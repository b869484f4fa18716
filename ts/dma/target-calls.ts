/**
 * Calls of one target: made until the target is closed, which also settles the call that is under way.
 */
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import { publishMap, publishUnmap } from './events.ts';
import type { Held } from './holdings.ts';
import { revocationUnknown, revoked } from './mapping-error.ts';
import { type SubMapping, mapRequest } from './sub-mapping.ts';
import { type TargetTraits, iovaRangesOf } from './target-traits.ts';

/** What a target answers when it is asked whether a mapping is void. @internal */
export interface RevocationAnswer {
  /** Why it is void, if it is. */
  readonly error: PeerDmaError | undefined;
  /** Not where `isRevoked` failed: the mapping counts as void then. */
  readonly known: boolean;
}

const NOT_REVOKED: RevocationAnswer = { error: undefined, known: true };

/** @internal */
export class TargetCalls {
  readonly #traits: TargetTraits;
  /** Which guest memory it is that the target follows, for events. */
  readonly #memory: number;
  #closed = false;
  /** Settles the call of the target that is under way. */
  #settle: (() => void) | undefined;

  constructor(traits: TargetTraits, memory: number) {
    this.#traits = traits;
    this.#memory = memory;
  }

  /** Whether the target and all that it mapped are gone. */
  get closed(): boolean {
    return this.#closed;
  }

  /** Settles the call that is under way. Later calls count as done and are not made. */
  close(): void {
    this.#closed = true;
    this.#settle?.();
  }

  /** @throws what the target throws */
  async map({ sub, hostMemory }: Held): Promise<void> {
    const { target } = this.#traits;
    const pending = this.#ask(() => target.mapDma(mapRequest(sub, hostMemory)));
    if (pending !== undefined) await pending;
    this.publishMap(sub);
  }

  /** Maps all of these or none. @throws what the target throws */
  async mapBatch(run: readonly Held[]): Promise<void> {
    const requests = run.map((held) => mapRequest(held.sub, held.hostMemory));
    await this.#ask(() => this.#traits.mapDmaBatch?.(requests));
    for (const held of run) this.publishMap(held.sub);
  }

  /** @throws what the target throws */
  unmap({ range, sub }: Held): void | Promise<void> {
    const { target } = this.#traits;
    const pending = this.#ask(() => target.unmapDma(range));
    if (pending === undefined) return this.publishUnmap(sub);
    return pending.then(() => this.publishUnmap(sub));
  }

  /** Whether a mapping is void. */
  revocation({ range, sub }: Held): RevocationAnswer {
    const { isRevoked, name } = this.#traits;
    if (isRevoked === undefined || this.#closed) return NOT_REVOKED;
    try {
      return isRevoked(range) === true ? { error: revoked(name, sub), known: true } : NOT_REVOKED;
    } catch (thrown) {
      return { error: revocationUnknown(name, sub, thrown), known: false };
    }
  }

  /** @throws {PeerDmaError} when `iovaRanges` of the target fails */
  iovaRanges(): readonly AddressRange[] | undefined {
    return this.#closed ? undefined : iovaRangesOf(this.#traits);
  }

  publishMap(sub: SubMapping): void {
    publishMap(this.#memory, this.#traits.name, sub);
  }

  publishUnmap(sub: SubMapping): void {
    publishUnmap(this.#memory, this.#traits.name, sub);
  }

  /** Calls the target, unless it is closed. Settles when the call does, or when the target is closed. */
  #ask(call: () => void | Promise<void>): void | Promise<void> {
    if (this.#closed) return undefined;
    const pending = call();
    if (pending === undefined) return undefined;
    return new Promise<void>((resolve, reject) => {
      this.#settle = resolve;
      if (this.#closed) resolve(); // the target was closed within its call
      Promise.resolve(pending).then(resolve, reject); // also handles a rejection after the target was closed
    }).finally(() => (this.#settle = undefined));
  }
}
