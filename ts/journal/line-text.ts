/**
 * The text of a journal line: describes a change of guest memory in a sentence or two.
 */
import { AddressRange } from '../address-range.ts';
import type { MemoryAction } from '../dma/events.ts';
import type { MappingStatus } from '../dma/target.ts';
import { asError, PeerDmaError } from '../errors.ts';
import type { RegionState } from '../guest/region-state.ts';
import type { Comparison, TargetState } from './compare.ts';
import { type Difference, differenceOf } from './differences.ts';

/** Limit of the regions, and of the mappings of a target, that a text names. */
const MAX_NAMED = 4;

/** Returns the text of a line about an operation of guest memory. @internal */
export function changeText(action: MemoryAction, { regions, targets, left }: Comparison, error: unknown): string {
  const clauses: string[] = [];
  if (error !== undefined) clauses.push(failureText(action, error));
  if (action === 'close' && error === undefined) clauses.push('guest memory is closed');
  else clauses.push(...shortened(regionClauses(differenceOf(regions)), 'more regions'));
  for (const one of left) clauses.push(`${one.mapper.name} has left, with ${mappingCount(one)}`);
  for (const { now, before, mappings: changes } of targets) {
    const { name } = now.mapper;
    if (before === undefined) clauses.push(`${name} has joined, with ${mappingCount(now)}`);
    else if (before.joined && !now.joined) clauses.push(`${name} gets no new mappings`);
    clauses.push(...shortened(statusClauses(name, changes), `more mappings of ${name}`));
  }
  if (clauses.length === 0) clauses.push(ACTION_TEXTS[action]);
  return `${sentence(clauses)}.`;
}

/** Texts of operations that change no region, target or status. */
const ACTION_TEXTS: Readonly<Record<MemoryAction, string>> = {
  change: 'memory is mapped in other pieces',
  join: 'a target joins',
  leave: 'a target leaves',
  'close-target': 'a closed target is removed',
  remap: 'device memory is unmapped from the targets and mapped again',
  close: 'guest memory is closed',
};

const FAILED_ACTIONS: Readonly<Record<MemoryAction, string>> = {
  change: 'a change',
  join: 'adding a target',
  leave: 'removing a target',
  'close-target': 'mapping the memory that a closed target had quarantined',
  remap: 'unmapping and remapping device memory',
  close: 'closing guest memory',
};

function failureText(action: MemoryAction, error: unknown): string {
  const { message } = asError(error);
  const code = error instanceof PeerDmaError ? `${error.code}: ` : '';
  return `${FAILED_ACTIONS[action]} has failed: ${code}${message}`;
}

function regionClauses({ removed, added }: Difference<RegionState>): string[] {
  const before = new Map(removed.map((region) => [region.id, region]));
  const clauses = added.map((region) => {
    const was = before.get(region.id);
    before.delete(region.id);
    return was === undefined ? `"${region.name}" is new${placeText(region)}` : regionChange(was, region);
  });
  for (const { name } of before.values()) clauses.push(`"${name}" is removed`);
  return clauses;
}

function placeText({ at }: RegionState): string {
  return at === undefined ? '' : `, at ${at}`;
}

function regionChange(was: RegionState, { name, at, writable, mappings: memory }: RegionState): string {
  if (was.at === undefined && at !== undefined) return `"${name}" is at ${at} now`;
  if (was.at !== undefined && at === undefined) return `"${name}" is no longer at ${was.at}`;
  if (was.at !== undefined && at !== undefined && was.at.start !== at.start)
    return `"${name}" moves from ${was.at} to ${at}`;
  if (was.writable !== writable) return `"${name}" becomes ${writable ? 'writable' : 'read-only'}`;
  return memory === was.mappings ? `"${name}" is placed again` : `the memory in "${name}" changes`;
}

/** Names mappings that failed, are quarantined or recovered. Leaves out mappings that follow their regions. */
function statusClauses(target: string, { removed, added }: Difference<MappingStatus>): string[] {
  const before = new Map(removed.map((status) => [rangeKey(status), status]));
  return added.flatMap((status): string[] => {
    const { region, range, state, code, errno } = status;
    const was = before.get(rangeKey(status));
    const what = `"${region}" at ${range}`;
    const why = [code, errno].filter((word) => word !== undefined).join(', ');
    if (state === 'quarantined') return [`${target} failed to unmap ${what} and may still reach it`];
    if (state === 'failed' && code === 'ERR_MAPPING_REVOKED') return [`the mapping of ${what} by ${target} is revoked`];
    if (state === 'failed') return [`${target} failed to map ${what}${why === '' ? '' : ` (${why})`}`];
    return state === 'mapped' && was !== undefined && was.state !== 'mapped' ? [`${target} has mapped ${what}`] : [];
  });
}

function rangeKey({ range }: MappingStatus): string {
  return String(range);
}

function shortened(clauses: readonly string[], rest: string): string[] {
  if (clauses.length <= MAX_NAMED) return [...clauses];
  return [...clauses.slice(0, MAX_NAMED - 1), `${clauses.length - MAX_NAMED + 1} ${rest}`];
}

function mappingCount({ maps: { tracked, quarantined } }: TargetState): string {
  const count = tracked.size + quarantined.size;
  return count === 1 ? 'one mapping' : `${count} mappings`;
}

function sentence(clauses: readonly string[]): string {
  const text = clauses.join('; ');
  return text.endsWith('.') ? text.slice(0, -1) : text;
}

/** Returns the text of a line about a BAR. @internal */
export function barText(
  bdf: string,
  bar: number,
  range: AddressRange | undefined,
  trapped: string | undefined,
): string {
  const name = bar === 6 ? 'the ROM' : `BAR ${bar}`;
  if (range === undefined) return `${name} of ${bdf} is not decoded.`;
  const rest = trapped === undefined ? '' : `; part of it is trapped: ${trapped}`;
  return `${name} of ${bdf} is decoded at ${range}${rest}.`;
}
