/**
 * Decides which sub-mappings a target receives, by its traits and by the caller's policy.
 *
 * The decision about a sub-mapping never changes, so it is not recorded.
 */
import { PeerDmaError } from '../errors.ts';
import { type AcceptedMemory, acceptsBacking } from './accepted-memory.ts';
import { backingMismatch, backingRejected } from './mapping-error.ts';
import type { SubMapping } from './sub-mapping.ts';
import type { MappingStatus, PeerToPeer } from './target.ts';

/** The part of a status that describes why a sub-mapping is skipped. @internal */
export type SkipReason = Pick<MappingStatus, 'code'> & Required<Pick<MappingStatus, 'reason'>>;

/** @internal */
export class MemoryFilter {
  readonly peerToPeer: PeerToPeer;
  readonly #target: string;
  readonly #accepts: Required<AcceptedMemory>;

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` when the policy requires memory that the target does not accept */
  constructor(target: string, accepts: Required<AcceptedMemory>, peerToPeer: PeerToPeer) {
    if (accepts.kinds === 'ram' && peerToPeer === 'required') {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `${target}: joining failed: it accepts RAM only, and peerToPeer is 'required'. Use 'best-effort' or 'off'`,
        { target },
      );
    }
    this.#target = target;
    this.#accepts = accepts;
    this.peerToPeer = peerToPeer;
  }

  /** Whether it lets all memory pass. */
  get passesAll(): boolean {
    const { kinds, backing, readOnly } = this.#accepts;
    return kinds === 'both' && backing === 'any' && readOnly && this.peerToPeer !== 'off';
  }

  /** Whether the target maps files only, so that {@link MemoryFilter.refusal} may return an error. */
  get needsFile(): boolean {
    return this.#accepts.backing !== 'any';
  }

  /** Whether the target is not called for a sub-mapping, which is not a failure. */
  skips(sub: SubMapping): boolean {
    const { kind } = sub;
    if (this.#accepts.kinds !== 'both' && this.#accepts.kinds !== kind) return true;
    if (!this.#accepts.readOnly && !sub.writable) return true;
    if (kind === 'ram' || this.peerToPeer === 'required') return false;
    return this.peerToPeer === 'off' || !acceptsBacking(this.#accepts.backing, sub);
  }

  /** Returns why a skipped sub-mapping is skipped. */
  skipReason(sub: SubMapping): SkipReason {
    const { kinds, backing, readOnly } = this.#accepts;
    if (kinds !== 'both' && kinds !== sub.kind) {
      return { reason: `it accepts ${kinds === 'ram' ? 'RAM' : 'device memory'} only` };
    }
    if (!readOnly && !sub.writable) return { reason: 'it cannot map read-only memory as such' };
    if (this.peerToPeer === 'off') return { reason: 'peer-to-peer is off for it' };
    return backingMismatch(this.#target, sub, backing);
  }

  /** Whether a change fails when the target cannot map this sub-mapping. */
  requires(sub: SubMapping): boolean {
    return (sub.kind === 'ram' || this.peerToPeer === 'required') && !this.skips(sub);
  }

  /** Returns why the target cannot map a sub-mapping that it requires. */
  refusal(sub: SubMapping): PeerDmaError | undefined {
    const { backing } = this.#accepts;
    if (this.skips(sub) || acceptsBacking(backing, sub)) return undefined;
    return backingRejected(this.#target, sub, backing);
  }
}
