/**
 * How one DMA target of a snapshot stands to an address. Runs in the page of `peerdma view` too: functions alone, which know
 * nothing but one another.
 */
import type { SeenMemory } from './explain.ts';
import type { StatusSnapshot, TargetSnapshot } from './inspect.ts';
import { holds } from './layers.ts';

/** How a target stands to an address. */
export interface TargetView {
  /** Name of the target. */
  readonly target: string;
  /**
   * `mapped`: its devices reach the memory; `failed`: it refused the memory; `void`: it had it, and the memory's device has
   * made that void since; `skipped`: peer-to-peer is off for it; `quarantined`: it would not unmap what was there, and may
   * still reach it; `absent`: there is memory, and it was not given any; `nothing`: there is no memory to be reached.
   */
  readonly state: 'mapped' | 'failed' | 'void' | 'skipped' | 'quarantined' | 'absent' | 'nothing';
  /** What it has mapped, or was to map, as one: guest-physical. */
  readonly start?: string;
  /** One past the last address of it. */
  readonly end?: string;
  /** Whether its devices may write there. */
  readonly writable?: boolean;
  /** An {@link ErrorCode} where an error is behind it. */
  readonly code?: string;
  /** Name of the kernel's error, where the kernel refused. */
  readonly errno?: string;
  /** Why it is so. */
  readonly reason?: string;
}

/** How a target stands to an address. @internal */
export function targetViewAt(target: TargetSnapshot, address: bigint, memory: SeenMemory | undefined): TargetView {
  const there = target.mappings.filter((mapping) => holds(mapping, address));
  const kept = there.find(({ state }) => state === 'quarantined');
  const mapping = kept ?? there[0];
  if (mapping === undefined) {
    if (memory === undefined) return { target: target.name, state: 'nothing' };
    return { target: target.name, state: 'absent', reason: whyAbsent(target) };
  }
  const { start, end, code, errno } = mapping;
  const state = stateOf(mapping);
  const reason = mapping.reason ?? (state === 'skipped' ? 'peer-to-peer is off for it' : undefined);
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

/** The state of a mapping, void ones told apart. @internal */
export function stateOf({ state, code }: StatusSnapshot): StatusSnapshot['state'] | 'void' {
  return state === 'failed' && code === 'ERR_MAPPING_REVOKED' ? 'void' : state;
}

/** Why a target has nothing where there is memory. @internal */
export function whyAbsent({ following }: TargetSnapshot): string {
  return following
    ? 'a change was under way when this was looked at, and had not come to it'
    : 'it was to leave, could not unmap all that it had, and gets nothing new';
}

/** A sentence about it. @internal */
export function viewSentence({ target, state, start, end, writable, code, errno, reason }: TargetView): string {
  const why = reason === undefined ? '' : `: ${reason}`;
  const what = [code, errno].filter((word) => word !== undefined).join(', ');
  const range = `${start}..${end}`;
  switch (state) {
    case 'mapped':
      return `${target} reaches it${writable === false ? ', to read only' : ''}: it has mapped ${range}.`;
    case 'quarantined':
      return `${target} may still reach what was there: it would not unmap ${range} (${what})${why}.`;
    case 'void':
      return `${target} does not reach it: its mapping of ${range} is void (${what})${why}.`;
    case 'skipped':
    case 'absent':
      return `${target} does not reach it${why}.`;
    case 'failed':
      return `${target} does not reach it: it could not map ${range}${what === '' ? '' : ` (${what})`}${why}.`;
    case 'nothing':
      return `${target} has nothing mapped there.`;
  }
}
