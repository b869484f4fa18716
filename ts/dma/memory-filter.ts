/**
 * Decides which sub-mappings a target receives, by its traits and by the caller's policy.
 *
 * The decision about a sub-mapping never changes, so it is not recorded.
 */
import { PeerDmaError } from '../errors.ts';
import { acceptsBacking } from './accepted-memory.ts';
import { FULL_ACCESS } from './device-access.ts';
import { backingMismatch, backingRejected } from './mapping-error.ts';
import type { PeerPolicy } from './peer-policy.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { TargetPort } from './target-port.ts';
import type { MappingStatus } from './target.ts';

/** The part of a status that describes why a sub-mapping is skipped. @internal */
export type SkipReason = Pick<MappingStatus, 'code'> & Required<Pick<MappingStatus, 'reason'>>;

/** The properties of a target that decide. @internal */
export type FilteredTarget = Pick<TargetPort, 'name' | 'accepts' | 'mapsForProcessors'>;

/** @internal */
export class MemoryFilter {
  readonly policy: PeerPolicy;
  readonly #target: FilteredTarget;

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` when the policy requires memory that the target does not accept */
  constructor(target: FilteredTarget, policy: PeerPolicy) {
    const { name, accepts } = target;
    if (accepts.kinds === 'ram' && policy.peerToPeer === 'required') {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `${name}: joining failed: it accepts RAM only, and peerToPeer is 'required'. Use 'best-effort' or 'off'`,
        { target: name },
      );
    }
    this.#target = target;
    this.policy = policy;
  }

  /** Whether the target receives all RAM. */
  get passesRam(): boolean {
    const { kinds, readOnly } = this.#target.accepts;
    return kinds !== 'device' && readOnly;
  }

  /** Whether the target maps files only, so that {@link MemoryFilter.refusal} may return an error. */
  get needsFile(): boolean {
    return this.#target.accepts.backing !== 'any';
  }

  /** Whether the target is not called for a sub-mapping, which is not a failure. */
  skips(sub: SubMapping): boolean {
    const { kinds, backing, readOnly } = this.#target.accepts;
    if (kinds !== 'both' && kinds !== sub.kind) return true;
    if (!readOnly && !sub.writable) return true;
    if (sub.kind === 'ram') return false;
    const { peerToPeer } = this.policy;
    if (peerToPeer === 'off' || this.#barrier(sub) !== undefined) return true;
    return peerToPeer !== 'required' && !acceptsBacking(backing, sub);
  }

  /** Returns why a skipped sub-mapping is skipped. */
  skipReason(sub: SubMapping): SkipReason {
    const { name, accepts } = this.#target;
    if (accepts.kinds !== 'both' && accepts.kinds !== sub.kind) {
      return { reason: `it accepts ${accepts.kinds === 'ram' ? 'RAM' : 'device memory'} only` };
    }
    if (!accepts.readOnly && !sub.writable) return { reason: 'it cannot map read-only memory as such' };
    if (this.policy.peerToPeer === 'off') return { reason: 'peer-to-peer is off for it' };
    const barrier = this.#barrier(sub);
    return barrier === undefined ? backingMismatch(name, sub, accepts.backing) : { reason: barrier };
  }

  /** Whether a change fails when the target cannot map this sub-mapping. */
  requires(sub: SubMapping): boolean {
    return (sub.kind === 'ram' || this.policy.peerToPeer === 'required') && !this.skips(sub);
  }

  /** Returns why the target cannot map a sub-mapping that it requires. */
  refusal(sub: SubMapping): PeerDmaError | undefined {
    const { name, accepts } = this.#target;
    if (this.skips(sub) || acceptsBacking(accepts.backing, sub)) return undefined;
    return backingRejected(name, sub, accepts.backing);
  }

  /** Returns why the policy of device memory excludes the target. */
  #barrier({ access = FULL_ACCESS }: SubMapping): string | undefined {
    if (this.#target.mapsForProcessors === true) {
      return access.processors ? undefined : 'mmap is off for the memory: processors of the guest trap';
    }
    if (!access.devices) return 'peer-to-peer is off for the memory';
    if (this.policy.domains.has(access.domain)) return undefined;
    const own = [...this.policy.domains].map((domain) => `"${domain}"`).join(', ');
    return `the memory is in the peer-to-peer domain "${access.domain}", and it maps ${own === '' ? 'none' : own}`;
  }
}
