/**
 * The texts of the lines of a journal: a change of guest memory in a sentence or two.
 */
import { AddressRange } from '../address-range.ts';
import type { MemoryAction } from '../dma/events.ts';
import type { MappingStatus } from '../dma/target.ts';
import { asError, PeerDmaError } from '../errors.ts';
import type { RegionState } from '../guest/region-state.ts';
import type { Comparison, TargetState } from './compare.ts';
import { type Difference, differenceOf } from './differences.ts';

/** The most regions, and mappings of a target, that a text names. */
const TOLD = 4;

/** @internal */
export function wordsFor(action: MemoryAction, { regions, targets, left }: Comparison, error: unknown): string {
  const told: string[] = [];
  if (error !== undefined) told.push(failure(action, error));
  if (action === 'end' && error === undefined) told.push('guest memory is closed');
  else told.push(...some(regionWords(differenceOf(regions)), 'more regions'));
  for (const one of left) told.push(`${one.mapper.name} has left, with ${mappingsOf(one)}`);
  for (const { now, before, mappings: changes } of targets) {
    const { name } = now.mapper;
    if (before === undefined) told.push(`${name} has joined, with ${mappingsOf(now)}`);
    else if (before.following && !now.following) told.push(`${name} gets no new mappings`);
    told.push(...some(statusWords(name, changes), `more mappings of ${name}`));
  }
  if (told.length === 0) told.push(QUIET[action]);
  return `${sentence(told)}.`;
}

/** The text of a line without a change of regions, targets or statuses. */
const QUIET: Readonly<Record<MemoryAction, string>> = {
  change: 'memory is mapped in other pieces',
  join: 'a target joins',
  leave: 'a target leaves',
  closed: 'a closed target is removed',
  device: 'device memory is unmapped from the targets and mapped again',
  end: 'guest memory is closed',
};

const FAILING: Readonly<Record<MemoryAction, string>> = {
  change: 'a change',
  join: 'adding a target',
  leave: 'removing a target',
  closed: 'mapping the memory that a closed target had quarantined',
  device: 'unmapping and remapping device memory',
  end: 'closing guest memory',
};

function failure(action: MemoryAction, error: unknown): string {
  const { message } = asError(error);
  const code = error instanceof PeerDmaError ? `${error.code}: ` : '';
  return `${FAILING[action]} has failed: ${code}${message}`;
}

function regionWords({ removed, added }: Difference<RegionState>): string[] {
  const before = new Map(removed.map((region) => [region.id, region]));
  const told = added.map((region) => {
    const was = before.get(region.id);
    before.delete(region.id);
    return was === undefined ? `"${region.name}" is new${place(region)}` : changeOf(was, region);
  });
  for (const { name } of before.values()) told.push(`"${name}" is removed`);
  return told;
}

function place({ at }: RegionState): string {
  return at === undefined ? '' : `, at ${at}`;
}

function changeOf(was: RegionState, { name, at, writable, mappings: memory }: RegionState): string {
  if (was.at === undefined && at !== undefined) return `"${name}" is at ${at} now`;
  if (was.at !== undefined && at === undefined) return `"${name}" is no longer at ${was.at}`;
  if (was.at !== undefined && at !== undefined && was.at.start !== at.start)
    return `"${name}" moves from ${was.at} to ${at}`;
  if (was.writable !== writable) return `"${name}" becomes ${writable ? 'writable' : 'read-only'}`;
  return memory === was.mappings ? `"${name}" is placed again` : `the memory in "${name}" changes`;
}

/** Mappings that failed, are quarantined, or are mapped after that. Mappings that follow their regions are left out. */
function statusWords(target: string, { removed, added }: Difference<MappingStatus>): string[] {
  const before = new Map(removed.map((status) => [key(status), status]));
  return added.flatMap((status): string[] => {
    const { name, range, state, code, errno } = status;
    const was = before.get(key(status));
    const what = `"${name}" at ${range}`;
    const why = [code, errno].filter((word) => word !== undefined).join(', ');
    if (state === 'quarantined') return [`${target} failed to unmap ${what} and may still reach it`];
    if (state === 'failed' && code === 'ERR_MAPPING_REVOKED') return [`the mapping of ${what} by ${target} is revoked`];
    if (state === 'failed') return [`${target} failed to map ${what}${why === '' ? '' : ` (${why})`}`];
    return state === 'mapped' && was !== undefined && was.state !== 'mapped' ? [`${target} has mapped ${what}`] : [];
  });
}

function key({ range }: MappingStatus): string {
  return String(range);
}

function some(told: readonly string[], rest: string): string[] {
  if (told.length <= TOLD) return [...told];
  return [...told.slice(0, TOLD - 1), `${told.length - TOLD + 1} ${rest}`];
}

function mappingsOf({ maps: { given, quarantined } }: TargetState): string {
  const count = given.size + quarantined.size;
  return count === 1 ? 'one mapping' : `${count} mappings`;
}

function sentence(told: readonly string[]): string {
  const text = told.join('; ');
  return text.endsWith('.') ? text.slice(0, -1) : text;
}

/** The text of a line about a BAR. @internal */
export function barWords(
  device: string,
  bar: number,
  range: AddressRange | undefined,
  trapped: string | undefined,
): string {
  const name = bar === 6 ? 'the ROM' : `BAR ${bar}`;
  if (range === undefined) return `${name} of ${device} is not decoded.`;
  const rest = trapped === undefined ? '' : `; part of it is trapped: ${trapped}`;
  return `${name} of ${device} is decoded at ${range}${rest}.`;
}
