/**
 * What has happened to guest memory, as a sentence or two.
 */
import { AddressRange } from '../address-range.ts';
import type { MemoryAction } from '../dma/events.ts';
import type { MappingStatus } from '../dma/target.ts';
import { asError, PeerDmaError } from '../errors.ts';
import type { RegionState } from '../guest/region-state.ts';
import type { Comparison, TargetState } from './compare.ts';
import { type Difference, differenceOf } from './differences.ts';

/** So many regions, and mappings of a target, are told one by one. */
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
    else if (before.following && !now.following) told.push(`${name} gets nothing new`);
    told.push(...some(statusWords(name, changes), `more mappings of ${name}`));
  }
  if (told.length === 0) told.push(QUIET[action]);
  return `${sentence(told)}.`;
}

/** What is said where nothing has changed that is worth a word. */
const QUIET: Readonly<Record<MemoryAction, string>> = {
  change: 'memory is mapped in other pieces',
  join: 'a target joins',
  leave: 'a target leaves',
  closed: 'a target is gone',
  device: 'memory of a device is taken from the targets and given back',
  end: 'guest memory is closed',
};

const FAILING: Readonly<Record<MemoryAction, string>> = {
  change: 'a change',
  join: 'a target that joins',
  leave: 'a target that leaves',
  closed: 'giving the others what a closed target had kept',
  device: 'taking memory of a device from the targets and giving it back',
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

/** What became of mappings that is worth a word: those that just come and go with their regions are not. */
function statusWords(target: string, { removed, added }: Difference<MappingStatus>): string[] {
  const before = new Map(removed.map((status) => [key(status), status]));
  return added.flatMap((status): string[] => {
    const { name, range, state, code, errno } = status;
    const was = before.get(key(status));
    const what = `"${name}" at ${range}`;
    const why = [code, errno].filter((word) => word !== undefined).join(', ');
    if (state === 'quarantined') return [`${target} would not unmap ${what}, and may still reach it`];
    if (state === 'failed' && code === 'ERR_MAPPING_REVOKED') return [`${what} is void for ${target}`];
    if (state === 'failed') return [`${target} misses ${what}${why === '' ? '' : ` (${why})`}`];
    return state === 'mapped' && was !== undefined && was.state !== 'mapped' ? [`${target} has ${what} now`] : [];
  });
}

function key({ range }: MappingStatus): string {
  return String(range);
}

function some(told: readonly string[], rest: string): string[] {
  if (told.length <= TOLD) return [...told];
  return [...told.slice(0, TOLD - 1), `${told.length - TOLD + 1} ${rest}`];
}

function mappingsOf({ records: { held, quarantined } }: TargetState): string {
  const count = held.size + quarantined.length;
  return count === 1 ? 'one mapping' : `${count} mappings`;
}

function sentence(told: readonly string[]): string {
  const text = told.join('; ');
  return text.endsWith('.') ? text.slice(0, -1) : text;
}

/** What became of a BAR. @internal */
export function barWords(
  device: string,
  bar: number,
  range: AddressRange | undefined,
  trapped: string | undefined,
): string {
  const name = bar === 6 ? 'the ROM' : `BAR ${bar}`;
  if (range === undefined) return `${name} of ${device} answers nowhere.`;
  return `${name} of ${device} answers at ${range}${trapped === undefined ? '' : `; not all of it is memory: ${trapped}`}.`;
}
