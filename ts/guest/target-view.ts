/**
 * Whether a DMA target of a snapshot reaches an address.
 */
import type { ErrorCode } from '../errors.ts';
import type { MemoryAtAddress } from './explain.ts';
import type { MappingStatusSnapshot, TargetSnapshot } from './inspect.ts';
import { holds } from './layers.ts';

/** Whether a target reaches an address, and why or why not. */
export interface TargetAtAddress {
  /** Name of the target. */
  readonly target: string;
  /**
   * The state of the target at the address.
   *
   * - `mapped`: its devices reach the memory
   * - `failed`: it could not map the memory
   * - `revoked`: the memory's device revoked its mapping
   * - `skipped`: it does not accept the memory, or the policy excludes it
   * - `quarantined`: it could not unmap earlier memory there, and may still reach that
   * - `absent`: the memory has not been mapped to it
   * - `nothing`: there is no memory
   */
  readonly state: 'mapped' | 'failed' | 'revoked' | 'skipped' | 'quarantined' | 'absent' | 'nothing';
  /** The first guest-physical address of its mapping. */
  readonly start?: string;
  /** One past the last address of its mapping. */
  readonly end?: string;
  /** Whether its devices may write there. */
  readonly writable?: boolean;
  /** The code of the error, if there is one. */
  readonly code?: ErrorCode;
  /** Name of the kernel's error, if the kernel refused. */
  readonly errno?: string;
  /** Why it does not reach the memory. */
  readonly reason?: string;
}

/** The view of one target. @internal */
export function targetViewAt(
  target: TargetSnapshot,
  address: bigint,
  memory: MemoryAtAddress | undefined,
): TargetAtAddress {
  const there = target.mappings.filter((mapping) => holds(mapping, address));
  const mapping = there.find(({ state }) => state === 'quarantined') ?? there[0];
  if (mapping === undefined) {
    if (memory === undefined) return { target: target.name, state: 'nothing' };
    return { target: target.name, state: 'absent', reason: whyAbsent(target) };
  }
  const { start, end, code, errno, reason } = mapping;
  const state = stateOf(mapping);
  return {
    target: target.name,
    state,
    start,
    end,
    ...(state === 'mapped' && memory !== undefined ? { writable: memory.writable } : {}),
    ...(code === undefined ? {} : { code }),
    ...(errno === undefined ? {} : { errno }),
    ...(reason === undefined ? {} : { reason }),
  };
}

/** The state of a mapping; `revoked` if the memory's device revoked it. @internal */
export function stateOf({ state, code }: MappingStatusSnapshot): MappingStatusSnapshot['state'] | 'revoked' {
  return state === 'failed' && code === 'ERR_MAPPING_REVOKED' ? 'revoked' : state;
}

/** Why memory is not mapped to a target. @internal */
export function whyAbsent({ joined }: TargetSnapshot): string {
  return joined
    ? 'a change was in progress and had not reached the target'
    : 'the target was removed, but has quarantined mappings';
}

/** The view as a sentence. @internal */
export function viewSentence({ target, state, start, end, writable, code, errno, reason }: TargetAtAddress): string {
  const why = reason === undefined ? '' : `: ${reason}`;
  const what = [code, errno].filter((word) => word !== undefined).join(', ');
  const range = `${start}..${end}`;
  switch (state) {
    case 'mapped':
      return `${target} reaches it${writable === false ? ', to read only' : ''}: it has mapped ${range}.`;
    case 'quarantined':
      return `${target} may still reach what was there: it would not unmap ${range} (${what})${why}.`;
    case 'revoked':
      return `${target} does not reach it: its mapping of ${range} is revoked (${what})${why}.`;
    case 'skipped':
    case 'absent':
      return `${target} does not reach it${why}.`;
    case 'failed':
      return `${target} does not reach it: it could not map ${range}${what === '' ? '' : ` (${what})`}${why}.`;
    case 'nothing':
      return `${target} has nothing mapped there.`;
  }
}
