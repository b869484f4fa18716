/**
 * Generates random programs.
 */
import fc from 'fast-check';
import type { Bench } from './bench.ts';
import { CAST_NAMES, callsOf } from './cast.ts';
import { Add, AddMapping, type Contents, Place, Remove, RemoveMappings, Unplace } from './changes.ts';
import { Call, type Course, MAX_COMMANDS, Populate, Swap, Write } from './commands.ts';
import { NATIVE_CALLS } from '../native-faults.ts';
import type { Fault } from './faults.ts';
import { type Change, FILE_PAGES, FILES, type Operation, SIZE } from './operation.ts';
import { Register, TargetClosed, Unregister } from './registrations.ts';

/** The properties of programs. */
export interface Taste {
  /** Faults in one command at most. */
  readonly faults: number;
  /** Whether calls into the native core fail too. */
  readonly native: boolean;
  /** How much more often than other commands calls are made without waiting. */
  readonly atOnce: number;
}

const REGIONS = ['r0', 'r1', 'r2', 'r3', 'r4', 'r5'] as const;
const WINDOWS = ['w0', 'w1', 'w2'] as const;

const often = fc.integer({ min: 0, max: 3 }).map((n) => n < 3);
const region = fc.constantFrom(...REGIONS);
const window = fc.constantFrom(...WINDOWS);
const either = fc.constantFrom(...REGIONS, ...WINDOWS);
const member = fc.constantFrom(...CAST_NAMES, 'iommu' as const, 'iommufd' as const, 'batch' as const);
const page = fc.nat(SIZE - 1);
const count = fc.integer({ min: 1, max: 10 });
const where = fc.record({ at: fc.nat(9), count });
const policy = fc.constantFrom('best-effort' as const, 'required' as const, 'off' as const, 'best-effort' as const);

const contents: fc.Arbitrary<Contents> = fc.record({
  file: fc.oneof(
    { weight: 3, arbitrary: fc.nat(FILES - 1) },
    { weight: 1, arbitrary: fc.constant('private' as const) },
  ),
  page: fc.nat(FILE_PAGES - 1),
  writable: often,
});

/**
 * Changes of the memory map. `files` is the number of files for device memory.
 *
 * RAM may have the first ones.
 */
export function addRegion(): fc.Arbitrary<Add> {
  const what = fc.record({
    kind: fc.constantFrom('ram' as const, 'device' as const),
    at: page,
    priority: fc.nat(2),
  });
  return fc
    .tuple(region, count, fc.option(contents, { nil: undefined, freq: 6 }), what)
    .map(([name, pages, of, place]) => new Add(name, pages, of, place));
}

export function addWindow(of: fc.Arbitrary<Contents> = contents): fc.Arbitrary<Add> {
  return fc
    .tuple(window, count, fc.option(of, { nil: undefined, freq: 6 }))
    .map(([name, pages, what]) => new Add(name, pages, what));
}

const addMapping = fc.tuple(either, where, contents).map(([name, at, what]) => new AddMapping(name, at, what));
const removeMappings = fc.tuple(either, where).map(([name, at]) => new RemoveMappings(name, at));
const mapRegion = fc.tuple(region, often).map(([name, writable]) => new Place(name, 0, writable));
const moveWindow = fc.tuple(window, page, often).map(([name, to, writable]) => new Place(name, to, writable));
const unplace = either.map((name) => new Unplace(name));
const remove = either.map((name) => new Remove(name));

type Weighted<T> = { readonly weight: number; readonly arbitrary: fc.Arbitrary<T> };

/** Operations on existing regions and windows. */
export const CHANGES: readonly Weighted<Change>[] = [
  { weight: 7, arbitrary: addMapping },
  { weight: 4, arbitrary: removeMappings },
  { weight: 12, arbitrary: mapRegion },
  { weight: 7, arbitrary: moveWindow },
  { weight: 4, arbitrary: unplace },
  { weight: 1, arbitrary: remove },
];

const REGISTRATIONS: readonly Weighted<Operation>[] = [
  { weight: 12, arbitrary: fc.tuple(member, policy).map(([name, how]) => new Register(name, how)) },
  { weight: 1, arbitrary: member.map((name) => new Unregister(name)) },
];

const nth = fc.constantFrom(1, 1, 1, 2, 2, 3, 4);
const how = fc.constantFrom('error' as const, 'coded' as const, 'text' as const);

function faultOn(taste: Taste): fc.Arbitrary<Fault> {
  const onAny = fc.record({ on: fc.constant('any'), op: fc.constantFrom('map', 'unmap') });
  const onTarget = member.chain((on) => fc.record({ on: fc.constant(on), op: fc.constantFrom(...callsOf(on)) }));
  const onNative = fc.record({ on: fc.constant('native'), op: fc.constantFrom(...NATIVE_CALLS) });
  const place: fc.Arbitrary<{ on: string; op: string }> = fc.oneof(
    onAny,
    onTarget,
    ...(taste.native ? [onNative] : []),
  );
  return fc
    .tuple(
      place,
      fc.record({
        nth,
        onwards: taste.faults > 1 ? often.map((most) => !most) : fc.constant(false),
        how,
      }),
    )
    .map(([on, rest]) => ({ ...on, ...rest }));
}

/** A map or an unmap fails, and so does the call that would undo it. */
const undoFails: fc.Arbitrary<readonly Fault[]> = fc
  .record({ first: fc.constantFrom('map', 'unmap'), nth, second: fc.constantFrom('map', 'unmap'), from: nth, how })
  .map(({ first, nth: count, second, from, how: thrown }) => {
    const fault = { on: 'any', op: first, nth: count, onwards: first === second, how: thrown };
    return first === second ? [fault] : [fault, { ...fault, op: second, nth: from, onwards: true }];
  });

/** Mostly without faults. */
function faultsOf(taste: Taste): fc.Arbitrary<readonly Fault[]> {
  const some = fc.array(faultOn(taste), { minLength: 1, maxLength: taste.faults, size: 'max' });
  const none = fc.constant<readonly Fault[]>([]);
  const shrinking = { withCrossShrink: true }; // to zero, if no fault is needed to fail
  if (taste.faults === 1) return fc.oneof(shrinking, { weight: 3, arbitrary: none }, { weight: 2, arbitrary: some });
  return fc.oneof(
    shrinking,
    { weight: 6, arbitrary: none },
    { weight: 2, arbitrary: some },
    { weight: 2, arbitrary: undoFails },
  );
}

/** A program of random commands. */
export function program(taste: Taste): fc.Arbitrary<Iterable<fc.AsyncCommand<Course, Bench>>> {
  const faults = faultsOf(taste);
  const call = (operation: fc.Arbitrary<Operation>) =>
    fc.tuple(operation, faults, fc.boolean()).map(([one, meets, again]) => new Call([one], meets, again));
  const populate = (added: fc.Arbitrary<Add>) =>
    fc
      .tuple(added, page, often, faults)
      .map(([add, to, writable, meets]) => new Populate(add, new Place(add.name, to, writable), meets));
  const several = fc
    .tuple(fc.array(fc.oneof(...CHANGES, ...REGISTRATIONS), { minLength: 2, maxLength: 4, size: 'max' }), faults)
    .map(([all, meets]) => new Call(all, meets, false));
  const swap = fc.tuple(fc.shuffledSubarray([...WINDOWS], { minLength: 2, maxLength: 2 }), faults);
  const write = fc.tuple(page, fc.integer({ min: 1, max: 255 }), fc.constantFrom('vmm' as const, ...CAST_NAMES));
  const command = fc.oneof(
    { weight: 8, arbitrary: populate(addRegion()) },
    { weight: 6, arbitrary: populate(addWindow()) },
    { weight: 4, arbitrary: call(addRegion()) },
    { weight: 2, arbitrary: call(addWindow()) },
    ...[...CHANGES, ...REGISTRATIONS].map(({ weight, arbitrary }) => ({
      weight: weight * 2,
      arbitrary: call(arbitrary),
    })),
    { weight: 4, arbitrary: call(member.map((name) => new TargetClosed(name))) },
    { weight: 8 * taste.atOnce, arbitrary: several },
    { weight: 3, arbitrary: swap.map(([[a = '', b = ''], meets]) => new Swap([a, b], meets)) },
    { weight: 8, arbitrary: write.map((args) => new Write(...args)) },
  );
  // Some commands cannot run in their state, so more are generated than run.
  return fc.commands([command], { maxCommands: MAX_COMMANDS * 3, size: 'max', disableReplayLog: true });
}
