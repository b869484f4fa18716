// The changes of a target's statuses, against the lists of all of them.
import fc from 'fast-check';
import test from 'ava';
import { AddressRange, type MappingStatus, PeerDmaError } from '../../ts/index.ts';
import type { DmaMapper } from '../../ts/dma/dma-mapper.ts';
import type { Held, HeldRecords } from '../../ts/dma/holdings.ts';
import type { Revocation } from '../../ts/dma/revocations.ts';
import { IntervalMap } from '../../ts/interval-map.ts';
import { applyHunks } from '../../ts/journal/delta.ts';
import { differenceOf } from '../../ts/journal/differences.ts';
import { statusChanges } from '../../ts/journal/status-changes.ts';

/** Turns a record into a status as a mapper does, and is none otherwise. */
const mapper = {
  statusOf: (held: Held): MappingStatus => mapper.statusThen(held, undefined),
  statusThen: ({ range, state, sub }: Held, revocation: PeerDmaError | undefined): MappingStatus => ({
    range,
    kind: 'device',
    name: sub.name,
    state: revocation === undefined ? state : 'failed',
    ...(revocation === undefined ? {} : { code: revocation.code, reason: revocation.message }),
  }),
} as DmaMapper;

const SLOTS = 8;
const RANGES = Array.from({ length: SLOTS }, (_, slot) => AddressRange.of(BigInt(slot), 1n));

/** At each address: what is recorded, whether it is another record than before, void, and in quarantine. */
const slot = fc.record({
  recorded: fc.constantFrom('mapped' as const, 'failed' as const, undefined),
  anew: fc.boolean(),
  why: fc.constantFrom(undefined, 'one reason', 'another'),
  quarantined: fc.constantFrom('none' as const, 'one' as const, 'another' as const),
});
const slots = fc.array(slot, { minLength: SLOTS, maxLength: SLOTS });

type Slots = typeof slots extends fc.Arbitrary<infer T> ? T : never;

function record(index: number, state: Held['state'], name: string): Held {
  return { range: RANGES[index] as AddressRange, sub: { name } as Held['sub'], state };
}

/** Records that are the same objects wherever they are the same. */
const known = new Map<string, Held>();

function recordsOf(list: Slots): HeldRecords {
  const once = (key: string, make: () => Held): Held => known.get(key) ?? known.set(key, make()).get(key) ?? make();
  const held = new IntervalMap<Held>();
  const quarantined: Held[] = [];
  const revoked = new IntervalMap<Revocation>();
  for (const [index, { recorded, anew, why, quarantined: kept }] of list.entries()) {
    if (recorded !== undefined) {
      const one = once(`${index} ${recorded} ${anew}`, () => record(index, recorded, 'same name'));
      held.insert(one);
      if (recorded === 'mapped' && why !== undefined) {
        revoked.insert({ range: one.range, held: one, error: new PeerDmaError('ERR_MAPPING_REVOKED', why) });
      }
    }
    if (kept !== 'none') quarantined.push(once(`${index} ${kept}`, () => record(index, 'quarantined', kept)));
  }
  return { held, quarantined, revoked };
}

function listOf({ held, quarantined, revoked }: HeldRecords): MappingStatus[] {
  const all = [...held.values(), ...quarantined].sort((a, b) => Number(a.range.start - b.range.start));
  return all.map((one) => {
    const found = revoked.startingAt(one.range.start);
    return mapper.statusThen(one, found?.held === one ? found.error : undefined);
  });
}

test('lead from the list before to the list now, and leave out entries that are the same', (t) => {
  const property = fc.property(slots, slots, (first, second) => {
    const [before, now] = [recordsOf(first), recordsOf(second)];
    const { hunks, removed, added } = differenceOf(statusChanges(mapper, before, now));
    const [old, young] = [listOf(before), listOf(now)];
    t.deepEqual(applyHunks(old, hunks), young);
    const text = (one: MappingStatus): string => `${one.range} ${one.name} ${one.state} ${one.code} ${one.reason}`;
    const same = removed.filter((one) => added.some((other) => text(one) === text(other)));
    t.deepEqual(same, []);
  });
  fc.assert(property, { numRuns: 3000 });
});

test('a record that got into quarantine since counts as mapped before', (t) => {
  const held = record(0, 'mapped', 'r');
  const map = new IntervalMap<Held>();
  map.insert(held);
  const before: HeldRecords = { held: map, quarantined: [], revoked: new IntervalMap() };
  held.state = 'quarantined';
  const now: HeldRecords = { held: new IntervalMap(), quarantined: [held], revoked: new IntervalMap() };
  t.deepEqual(
    statusChanges(mapper, before, now).map(({ index, removed, added }) => [index, removed?.state, added?.state]),
    [
      [0, 'mapped', undefined],
      [1, undefined, 'quarantined'],
    ],
  );
});
