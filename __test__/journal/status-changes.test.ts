// Compares the status changes of a target with the complete lists before and after.
import fc from 'fast-check';
import test from 'ava';
import { AddressRange, type MappingStatus, PeerDmaError } from '../../ts/index.ts';
import { CustomTarget } from '../../ts/dma/custom-target.ts';
import { DmaMapper } from '../../ts/dma/dma-mapper.ts';
import { type MappingFailure, failureOf } from '../../ts/dma/mapping-failure.ts';
import { MemoryOwner } from '../../ts/memory/backing.ts';
import type { SubMapping } from '../../ts/dma/sub-mapping.ts';
import { readPeerPolicy } from '../../ts/dma/peer-policy.ts';
import { TargetMappings, type TargetMaps } from '../../ts/dma/target-mappings.ts';
import { readTarget } from '../../ts/dma/target-traits.ts';
import { IntervalMap } from '../../ts/interval-map.ts';
import { applyHunks } from '../../ts/journal/delta.ts';
import { differenceOf } from '../../ts/journal/differences.ts';
import { NO_MAPS, statusChanges } from '../../ts/journal/status-changes.ts';

/** A mapper that converts sub-mappings to statuses. Its target is never called. */
const mapper = new DmaMapper(
  new CustomTarget(readTarget({ name: 'target', mapDma: () => {}, unmapDma: () => {} })),
  readPeerPolicy(),
  () => {
    throw new Error('no sub-mapping is mapped');
  },
  0,
);

const SLOTS = 8;
const RANGES = Array.from({ length: SLOTS }, (_, slot) => AddressRange.of(BigInt(slot), 1n));

const WHY = {
  first: () => new PeerDmaError('ERR_MAP_FAILED', 'one reason'),
  'other reason': () => new PeerDmaError('ERR_MAP_FAILED', 'another'),
  'other errno': () => new PeerDmaError('ERR_MAP_FAILED', 'one reason', { errno: 'EINVAL' }),
  'other code': () => new PeerDmaError('ERR_MAPPING_REVOKED', 'one reason'),
};
type Why = keyof typeof WHY;

const why = fc.constantFrom<(Why | undefined)[]>(undefined, ...(Object.keys(WHY) as Why[]));

/** For each address: the tracked sub-mapping, its error, whether that is new, the quarantined one. */
const slot = fc.record({
  tracked: fc.constantFrom('one' as const, 'another' as const, undefined),
  failed: why,
  revoked: why,
  anew: fc.boolean(),
  quarantined: fc.constantFrom('one' as const, 'another' as const, undefined),
});
const slots = fc.array(slot, { minLength: SLOTS, maxLength: SLOTS });

type Slots = typeof slots extends fc.Arbitrary<infer T> ? T : never;

function subAt(index: number, name: string): SubMapping {
  return {
    range: RANGES[index] as AddressRange,
    name,
    kind: 'device',
    memory: { owner: new MemoryOwner(() => {}) } as SubMapping['memory'],
    writable: true,
    regionId: 1,
    isInHostView: false,
  };
}

/** Returns one object for each key. */
const known = new Map<string, unknown>();

function once<T>(key: string, make: () => T): T {
  if (!known.has(key)) known.set(key, make());
  return known.get(key) as T;
}

function mapsOf(list: Slots): TargetMaps {
  const tracked = new IntervalMap<SubMapping>();
  const maps = { tracked, failed: failures(), revoked: failures(), quarantined: failures() };
  for (const [index, at] of list.entries()) {
    const sub = (which: string): SubMapping => once(`sub ${index} ${which}`, () => subAt(index, which));
    const failure = (which: string, reason: Why): MappingFailure =>
      once(`${index} ${which} ${reason} ${at.anew}`, () => failureOf(sub(which), WHY[reason]()));
    if (at.tracked !== undefined) {
      tracked.insert(sub(at.tracked));
      // A failed mapping is not mapped, so it cannot be revoked.
      if (at.failed !== undefined) maps.failed.insert(failure(at.tracked, at.failed));
      else if (at.revoked !== undefined) maps.revoked.insert(failure(at.tracked, at.revoked));
    }
    const { quarantined } = at;
    if (quarantined === undefined) continue;
    // A quarantined sub-mapping may have been tracked before, or be tracked now.
    maps.quarantined.insert(once(`${index} ${quarantined}`, () => failureOf(sub(quarantined), WHY.first())));
  }
  return maps;
}

function failures(): IntervalMap<MappingFailure> {
  return new IntervalMap();
}

function listOf({ tracked, failed, revoked, quarantined }: TargetMaps): MappingStatus[] {
  const errorOf = (sub: SubMapping): PeerDmaError | undefined =>
    [...failed.values(), ...revoked.values()].find((failure) => failure.sub === sub)?.error;
  const all = [
    ...tracked.values().map((sub) => mapper.status.tracked(sub, errorOf(sub))),
    ...quarantined.values().map((failure) => mapper.status.quarantined(failure)),
  ];
  return all.sort((a, b) => Number(a.range.start - b.range.start));
}

test('lead from the old list to the new list, and leave out unchanged entries', (t) => {
  const property = fc.property(slots, slots, (first, second) => {
    const [before, now] = [mapsOf(first), mapsOf(second)];
    const { hunks, removed, added } = differenceOf(statusChanges(mapper, before, now));
    t.deepEqual(applyHunks(listOf(before), hunks), listOf(now));
    const text = (one: MappingStatus): string => JSON.stringify([`${one.range}`, { ...one, range: undefined }]);
    const same = removed.filter((one) => added.some((other) => text(one) === text(other)));
    t.deepEqual(same, []);
  });
  fc.assert(property, { numRuns: 3000 });
});

test('lead from an earlier version of the records of a target to the current list', (t) => {
  const [mapped, failed, stuck] = [0, 1, 2].map((index) => subAt(index, `sub ${index}`)) as [
    SubMapping,
    SubMapping,
    SubMapping,
  ];
  const mappings = new TargetMappings();
  const lists = (before: TargetMaps, now: TargetMaps) =>
    statusChanges(mapper, before, now).map(({ index, removed, added }) => [index, removed?.state, added?.state]);
  mappings.track([mapped, failed, stuck], () => true);
  const first = mappings.snapshot(undefined);
  mappings.fail(failureOf(failed, WHY.first()));
  mappings.quarantine([failureOf(stuck, WHY['other code']())]);
  const second = mappings.snapshot(undefined);
  mappings.remove([mapped, failed]);
  mappings.clearQuarantine();
  const third = mappings.snapshot(undefined);

  t.deepEqual(lists(NO_MAPS, first), [
    [0, undefined, 'mapped'],
    [0, undefined, 'mapped'],
    [0, undefined, 'mapped'],
  ]);
  t.deepEqual(lists(first, second), [
    [1, 'mapped', 'failed'],
    [2, 'mapped', undefined],
    [3, undefined, 'quarantined'],
  ]);
  t.deepEqual(lists(second, third), [
    [0, 'mapped', undefined],
    [1, 'failed', undefined],
    [2, 'quarantined', undefined],
  ]);
  t.deepEqual(lists(first, third), [
    [0, 'mapped', undefined],
    [1, 'mapped', undefined],
    [2, 'mapped', undefined],
  ]);
});
