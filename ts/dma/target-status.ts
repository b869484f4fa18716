/**
 * How sub-mappings stand with one target, for people.
 */
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import { revocationUnknown, revoked, statusOf } from './mapping-error.ts';
import type { MappingFailure } from './mapping-failure.ts';
import type { RevocationAnswer } from './revocations.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { TargetMappings } from './target-mappings.ts';
import type { TargetPort } from './target-port.ts';
import type { MappingStatus } from './target.ts';

const NOT_REVOKED: RevocationAnswer = { error: undefined, known: true };

/** @internal */
export class TargetStatus {
  readonly #port: TargetPort;
  readonly #mappings: TargetMappings;
  readonly #skips: (sub: SubMapping) => boolean;

  /** @param skips whether the policy keeps a sub-mapping from the target */
  constructor(port: TargetPort, mappings: TargetMappings, skips: (sub: SubMapping) => boolean) {
    this.#port = port;
    this.#mappings = mappings;
    this.#skips = skips;
  }

  /** Of each sub-mapping, in order of address; what is quarantined comes last of those at one address. */
  all(): MappingStatus[] {
    return this.#list(this.#mappings.values(), this.#mappings.quarantined.values());
  }

  /** As {@link TargetStatus.all}, of those that share an address with the range. @param wanted which of them */
  in(range: AddressRange, wanted: (sub: SubMapping) => boolean = () => true): MappingStatus[] {
    const quarantined = this.#mappings.quarantined.overlapping(range).filter(({ sub }) => wanted(sub));
    return this.#list(this.#mappings.overlapping(range).filter(wanted), quarantined);
  }

  /** Of one sub-mapping; `undefined` when the target was not given it. */
  of(sub: SubMapping): MappingStatus | undefined {
    return this.#mappings.has(sub) ? this.given(sub, this.errorOf(sub)) : undefined;
  }

  /** Of a sub-mapping that was given. @param error why the target does not have it, if it does not */
  given(sub: SubMapping, error: PeerDmaError | undefined): MappingStatus {
    const { range, kind, name } = sub;
    const state = error !== undefined ? 'failed' : this.#skips(sub) ? 'skipped' : 'mapped';
    return { range, kind, name, state, ...statusOf(error) };
  }

  /** Of a sub-mapping that is quarantined. */
  quarantined({ sub, error }: MappingFailure): MappingStatus {
    const { range, kind, name } = sub;
    return { range, kind, name, state: 'quarantined', ...statusOf(error) };
  }

  /**
   * Why the target does not have a given sub-mapping, if it does not. If `isRevoked` throws, the mapping counts as
   * revoked. Nothing revokes RAM, so `isRevoked` is called for device memory only.
   */
  errorOf(sub: SubMapping): PeerDmaError | undefined {
    const error = this.#mappings.errorOf(sub);
    if (error !== undefined || this.#port.isRevoked === undefined) return error;
    return this.#skips(sub) || !this.#mappings.devices.has(sub) ? undefined : this.revocation(sub).error;
  }

  /** Whether a mapping is revoked. */
  revocation(sub: SubMapping): RevocationAnswer {
    const { calls, name } = this.#port;
    if (calls.closed) return NOT_REVOKED;
    try {
      return this.#port.isRevoked?.(sub.range) === true ? { error: revoked(name, sub), known: true } : NOT_REVOKED;
    } catch (thrown) {
      return { error: revocationUnknown(name, sub, thrown), known: false };
    }
  }

  #list(subs: readonly SubMapping[], quarantined: readonly MappingFailure[]): MappingStatus[] {
    const statuses = subs.map((sub) => this.given(sub, this.errorOf(sub)));
    if (quarantined.length === 0) return statuses;
    for (const one of quarantined) statuses.push(this.quarantined(one));
    return statuses.sort(({ range: a }, { range: b }) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
  }
}
