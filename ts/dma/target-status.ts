/**
 * The states of sub-mappings in one target, for status reports.
 */
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import { revocationUnknown, revoked, statusOf } from './mapping-error.ts';
import type { MappingFailure } from './mapping-failure.ts';
import type { MemoryFilter } from './memory-filter.ts';
import type { RevocationState } from './revocations.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { TargetMappings } from './target-mappings.ts';
import type { TargetPort } from './target-port.ts';
import type { MappingStatus } from './target.ts';

const NOT_REVOKED: RevocationState = { error: undefined, known: true };

/** @internal */
export class TargetStatus {
  readonly #port: TargetPort;
  readonly #mappings: TargetMappings;
  readonly #filter: MemoryFilter;

  constructor(port: TargetPort, mappings: TargetMappings, filter: MemoryFilter) {
    this.#port = port;
    this.#mappings = mappings;
    this.#filter = filter;
  }

  /** Returns all states, in order of address; quarantined ones are last at each address. */
  all(): MappingStatus[] {
    return this.#list(this.#mappings.values(), this.#mappings.quarantined.values());
  }

  /** As {@link TargetStatus.all}, for sub-mappings that overlap a range and match a filter. */
  in(range: AddressRange, filter: (sub: SubMapping) => boolean = () => true): MappingStatus[] {
    const quarantined = this.#mappings.quarantined.overlapping(range).filter(({ sub }) => filter(sub));
    return this.#list(this.#mappings.overlapping(range).filter(filter), quarantined);
  }

  /** Returns the state of one sub-mapping; `undefined` if it is not tracked. */
  of(sub: SubMapping): MappingStatus | undefined {
    return this.#mappings.has(sub) ? this.tracked(sub, this.errorOf(sub)) : undefined;
  }

  /** Returns the state of a tracked sub-mapping. @param error why it is not mapped, if it is not */
  tracked(sub: SubMapping, error: PeerDmaError | undefined): MappingStatus {
    const { range, kind, name } = sub;
    if (error !== undefined) return { range, kind, region: name, state: 'failed', ...statusOf(error) };
    if (!this.#filter.skips(sub)) return { range, kind, region: name, state: 'mapped' };
    return { range, kind, region: name, state: 'skipped', ...this.#filter.skipReason(sub) };
  }

  /** Returns the state of a quarantined sub-mapping. */
  quarantined({ sub, error }: MappingFailure): MappingStatus {
    const { range, kind, name } = sub;
    return { range, kind, region: name, state: 'quarantined', ...statusOf(error) };
  }

  /**
   * Returns why a tracked sub-mapping is not mapped or is revoked, if so. If `isRevoked` throws, the mapping counts as
   * revoked. RAM is never revoked, so `isRevoked` is called for device memory only.
   */
  errorOf(sub: SubMapping): PeerDmaError | undefined {
    const error = this.#mappings.errorOf(sub);
    if (error !== undefined || this.#port.isRevoked === undefined) return error;
    return this.#filter.skips(sub) || !this.#mappings.devices.has(sub) ? undefined : this.revocation(sub).error;
  }

  /** Whether a mapping is revoked. */
  revocation(sub: SubMapping): RevocationState {
    const { calls, name } = this.#port;
    if (calls.closed) return NOT_REVOKED;
    try {
      return this.#port.isRevoked?.(sub.range) === true ? { error: revoked(name, sub), known: true } : NOT_REVOKED;
    } catch (thrown) {
      return { error: revocationUnknown(name, sub, thrown), known: false };
    }
  }

  #list(subs: readonly SubMapping[], quarantined: readonly MappingFailure[]): MappingStatus[] {
    const statuses = subs.map((sub) => this.tracked(sub, this.errorOf(sub)));
    if (quarantined.length === 0) return statuses;
    for (const one of quarantined) statuses.push(this.quarantined(one));
    return statuses.sort(({ range: a }, { range: b }) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  }
}
