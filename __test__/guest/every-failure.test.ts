// Every change fails at every primitive step, and at every step of its rollback. The map is as before, each target
// holds the memory that its status reports, no other memory is mapped, and the change can be repeated.
import { readdirSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { AddressRange, GuestMemory, PeerDmaError, type PeerToPeer } from '../../ts/index.ts';
import { type FaultPlan, heal, inject, countNative, DEVICE } from '../support/faults.ts';
import { FailureScene, type Kinds, NEW_PRIVATE, isDevicePlace } from '../support/failure-scene.ts';
import { at, PAGE, pages } from '../support/pages.ts';

/** The properties of the targets, and whether two steps fail as well. */
interface Case extends Kinds {
  readonly pairs: boolean;
}

/** Without targets that need host memory of files there are fewer steps, and fewer combinations. */
const CASES: readonly Case[] = [
  { policy: 'required', needsVa: [true, true], pairs: true },
  { policy: 'best-effort', needsVa: [true, 'private'], pairs: true },
  { policy: 'required', needsVa: ['private', 'private'], pairs: false },
  { policy: 'best-effort', needsVa: [true, true], pairs: false },
  { policy: 'off', needsVa: [true, 'private'], pairs: false },
];

function describe({ policy, needsVa }: Kinds): string {
  const byFile = needsVa.filter((needs) => needs === 'private').length;
  return `device memory is ${policy}, ${['no target maps', 'one target maps', 'both targets map'][byFile]} files by file`;
}

/** A quarantine that needs a target with host memory of files. */
const BY_PLACE = 'a target closes with a quarantine';

interface Change {
  readonly title: string;
  readonly romShown?: boolean;
  /** The targets registered before. Default: both. */
  readonly joined?: readonly number[];
  readonly prepare?: (scene: FailureScene) => Promise<unknown>;
  readonly run: (scene: FailureScene) => Promise<unknown>;
  /** Maps device memory that was skipped. Default: the change once more. */
  readonly repeat?: (scene: FailureScene) => Promise<unknown>;
}

async function repeatBars(scene: FailureScene): Promise<void> {
  await scene.bar(0).mapToGuest(at(16));
  await scene.bar(1).mapToGuest(at(20));
}

/** Mapping the ROM fails, and the second target fails to unmap a page. RAM cannot be restored for the first. */
async function quarantineLow(scene: FailureScene): Promise<void> {
  inject((_step, what) => what === 'other: map 0x1000..0x3000' || what === 'other: unmap 0x0..0x1000');
  await scene.rom.mapToGuest().catch(() => {});
  heal();
  const states = scene.memory.inspect().targets.map(({ mappings }) => mappings.map(({ state }) => state));
  if (states[0]?.[0] !== 'failed' || !states[1]?.includes('quarantined'))
    throw new Error('the quarantine does not exist');
}

const CHANGES: readonly Change[] = [
  {
    title: 'a region of RAM is mapped',
    prepare: ({ high }) => high.unmapFromGuest(),
    run: ({ high }) => high.mapToGuest(),
  },
  { title: 'a region of RAM is unmapped', run: ({ low }) => low.unmapFromGuest() },
  { title: 'a region of RAM is removed', romShown: true, run: ({ low }) => low.remove() },
  { title: 'a ROM is mapped over RAM', run: ({ rom }) => rom.mapToGuest() },
  { title: 'a ROM over RAM is unmapped', romShown: true, run: ({ rom }) => rom.unmapFromGuest() },
  { title: 'RAM becomes read-only', romShown: true, run: ({ low }) => low.mapToGuest({ writable: false }) },
  {
    title: 'a file replaces the middle of RAM',
    run: ({ low, file }) => low.addMapping({ range: pages(1, 2), backing: { file, offset: at(28) } }),
  },
  {
    title: 'private memory replaces the middle of private memory',
    run: ({ high }) => high.addMapping({ range: pages(Number(NEW_PRIVATE.start / PAGE) - 8, 1), backing: 'private' }),
  },
  { title: 'the middle of RAM is removed', run: ({ low }) => low.removeMappings(pages(1, 2)) },
  { title: 'a BAR is enabled', run: (scene) => scene.bar(2).mapToGuest(at(24)) },
  { title: 'a BAR moves', run: (scene) => scene.bar(0).mapToGuest(at(24)) },
  { title: 'a BAR moves by a page', run: (scene) => scene.bar(0).mapToGuest(at(17)) },
  { title: 'a BAR moves onto another BAR', run: (scene) => scene.bar(0).mapToGuest(at(18)) },
  { title: 'a BAR moves below RAM', run: (scene) => scene.bar(0).mapToGuest(at(3)) },
  { title: 'a BAR is disabled', run: (scene) => scene.bar(0).unmapFromGuest() },
  { title: 'a BAR closes', run: (scene) => scene.bar(0).remove() },
  {
    title: 'a mapping is added to a BAR',
    run: (scene) =>
      scene.bar(0).addMapping({ range: AddressRange.of(PAGE, PAGE), backing: { file: scene.file, offset: at(9) } }),
  },
  {
    title: 'a mapping is removed from a BAR',
    run: (scene) => scene.bar(0).removeMappings(AddressRange.of(at(2), PAGE)),
  },
  { title: 'the first target joins', romShown: true, joined: [], run: (scene) => scene.join(0), repeat: repeatBars },
  {
    title: 'the first target joins without batches',
    joined: [],
    run: (scene) => scene.join(1),
    repeat: repeatBars,
  },
  {
    title: 'a target joins beside another',
    romShown: true,
    joined: [1],
    run: (scene) => scene.join(0),
    repeat: repeatBars,
  },
  { title: 'a target leaves', romShown: true, run: (scene) => scene.leave(0) },
  {
    title: BY_PLACE,
    prepare: quarantineLow,
    run: async (scene) => {
      await scene.close(1);
      await scene.low.mapToGuest(); // no effect, unless the call before failed
    },
  },
];

type Outcome = { readonly error: unknown } | undefined;

interface Golden {
  readonly steps: number;
  readonly map: string;
  readonly holdings: readonly string[];
  readonly joined: readonly boolean[];
}

async function outcomeOf(change: Promise<unknown>): Promise<Outcome> {
  return change.then(
    () => undefined,
    (error: unknown) => ({ error }),
  );
}

async function stage({ romShown = false, joined = [0, 1], prepare }: Change, kinds: Kinds) {
  const scene = await FailureScene.create(kinds, romShown);
  for (const index of joined) await scene.join(index);
  await prepare?.(scene);
  return scene;
}

/** The result of the change without failures. */
async function golden(change: Change, kinds: Kinds): Promise<Golden> {
  const scene = await stage(change, kinds);
  inject(() => false);
  await change.run(scene);
  const { taken } = heal();
  const joined = scene.registeredTargets.map(({ handle }) => handle !== undefined);
  // A target that closes ends its quarantine permanently once it is back.
  await settle(scene, joined);
  const result = { steps: taken.length, map: scene.map(), holdings: scene.statusLines(), joined };
  await scene.end();
  return result;
}

/** Closes the targets with a quarantine, and registers the targets again. */
async function settle(scene: FailureScene, joined: readonly boolean[]): Promise<void> {
  for (const { target } of scene.memory.inspect().quarantine) {
    await scene.close(scene.registeredTargets.findIndex((follower) => follower.target.name === target));
  }
  for (const [index, hasJoined] of joined.entries()) {
    if (hasJoined && scene.targetAt(index).handle === undefined) await scene.join(index);
  }
}

/** Runs one case. @returns the number of steps until everything failed or was rolled back */
async function check(change: Change, kinds: Kinds, due: Golden, plan: FaultPlan): Promise<number> {
  const { policy } = kinds;
  const scene = await stage(change, kinds);
  const before = {
    map: scene.map(),
    holdings: scene.statusLines(),
    quarantine: scene.memory.inspect().quarantine.length,
  };
  inject(plan);
  const outcome = await outcomeOf(change.run(scene));
  const { taken, failed } = heal();
  try {
    same('with the targets', scene.inconsistencies(), []);
    const quarantined = scene.memory.inspect().quarantine.length;
    if (outcome === undefined) {
      // Only device memory that the policy lets a target skip, and its unmap from this process.
      const notFaultedIn = policy !== 'required' && failed.some((step) => FAULTING_IN_DEVICE.test(step));
      const noticed = (step: string): boolean => missable(step, policy) || (notFaultedIn && step === 'native: unmap');
      if (!failed.every(noticed)) throw new Error('a failure went unnoticed');
      same('quarantine', quarantined, 0);
    } else {
      const { error } = outcome;
      if (!(error instanceof PeerDmaError)) throw new Error('not an error of the package', { cause: error });
      same('map', scene.map(), before.map);
      const first = failed.find((step) => !missable(step, policy)) ?? '';
      if (first.startsWith('native')) same('syscall of the error', error.syscall, 'mmap');
      else if (error.range === undefined || !first.startsWith(`${error.target}: `)) {
        throw new Error('the error does not name target and range', { cause: error });
      }
      const refusedToGo = failed.some((step) => /unmap|take back/.test(step) && !step.startsWith('native'));
      if (!refusedToGo && quarantined > before.quarantine) throw new Error('quarantined for no reason');
      if (failed.length === 1 && !refusedToGo && before.quarantine === 0)
        same('holdings', scene.statusLines(), before.holdings);
      const worse = before.quarantine === 0 && scene.statusLines().join() !== before.holdings.join();
      if (worse && error.code !== 'ERR_UNMAP_FAILED' && error.code !== 'ERR_ROLLBACK_FAILED') {
        throw new Error(`something has changed, and the error is ${error.code}`, { cause: error });
      }
    }
    let again = await outcomeOf((outcome === undefined ? (change.repeat ?? change.run) : change.run)(scene));
    if (again !== undefined) {
      const { error } = again;
      if (quarantined === 0 || !(error instanceof PeerDmaError && error.code === 'ERR_RANGE_QUARANTINED')) {
        throw new Error('the repeated change failed', { cause: error });
      }
    }
    same('with the targets after a repetition', scene.inconsistencies(), []);
    await settle(scene, due.joined);
    if (again !== undefined) again = await outcomeOf(change.run(scene));
    if (again !== undefined) throw new Error('the last repetition failed', { cause: again.error });
    await settle(scene, due.joined);
    same('map at the end', scene.map(), due.map);
    same('holdings at the end', scene.statusLines(), due.holdings);
    await scene.end();
  } catch (error) {
    const told = outcome?.error instanceof Error ? outcome.error.message : 'success';
    throw new Error(
      `${change.title}, ${describe(kinds)}: failing were ${failed.join(' and ')}: ${(error as Error).message}\nthe change said: ${told}\n${taken.join('\n')}`,
      { cause: error },
    );
  }
  return taken.length;
}

const FAULTING_IN_DEVICE = /^native: ensureMapped(Async)? \(device\)$/;

/** Whether a target may skip the memory that this step maps. */
function missable(step: string, policy: PeerToPeer): boolean {
  return policy !== 'required' && step.endsWith(DEVICE);
}

function same(what: string, is: unknown, due: unknown): void {
  const [a, b] = [is, due].map((value) => (typeof value === 'string' ? value : JSON.stringify(value, undefined, 1)));
  if (a !== b) throw new Error(`${what}: ${a}\ninstead of ${b}`);
}

async function enumerate(t: ExecutionContext, change: Change, kinds: Case): Promise<Record<string, number>> {
  const due = await golden(change, kinds);
  t.true(due.steps > 0 || kinds.policy === 'off', 'with peer-to-peer off only a change of BARs takes no step');
  const cases = { 'one step fails': 0, 'two steps fail': 0, 'all from a step on fail': 0 };
  for (let k = 0; k < due.steps; k++) {
    const steps = await check(change, kinds, due, (step) => step === k);
    cases['one step fails']++;
    await check(change, kinds, due, (step) => step >= k);
    cases['all from a step on fail']++;
    for (let j = k + 1; kinds.pairs && j < steps; j++) {
      await check(change, kinds, due, (step) => step === k || step === j);
      cases['two steps fail']++;
      await check(change, kinds, due, (step) => step === k || step >= j);
      cases['all from a step on fail']++;
    }
  }
  return cases;
}

countNative(isDevicePlace);
const total: Record<string, number> = {};

for (const change of CHANGES) {
  for (const kinds of CASES) {
    if (change.title === BY_PLACE && !kinds.needsVa.includes(true)) continue;
    test.serial(`${change.title}, and any step of it fails; ${describe(kinds)}`, async (t) => {
      t.timeout(120_000);
      for (const [what, count] of Object.entries(await enumerate(t, change, kinds))) {
        total[what] = (total[what] ?? 0) + count;
      }
    });
  }
}

test.serial('guest memory closes, and any step of it fails', async (t) => {
  const kinds = { policy: 'required', needsVa: [true, 'private'] } as const;
  const joined = [0, 1];
  const close: Change = { title: 'close', romShown: true, joined, run: ({ memory }) => memory.close() };
  for (let k = 0, steps = 1; k < steps; k++) {
    const scene = await stage(close, kinds);
    const before = scene.map();
    inject((step) => step === k);
    const outcome = await outcomeOf(close.run(scene));
    const { taken, failed } = heal();
    steps = taken.length;
    const what = failed.join();
    t.true(outcome?.error instanceof PeerDmaError && outcome.error.code === 'ERR_UNMAP_FAILED', what);
    t.is(scene.map(), before, what);
    const [kept, ...others] = scene.memory.inspect().quarantine;
    t.true(kept !== undefined && others.length === 0, what);
    t.is(scene.registeredTargets.flatMap(({ target }) => target.held()).length, 1, 'everything else is unmapped');
    for (const follower of scene.registeredTargets) follower.handle = undefined;
    t.deepEqual(scene.inconsistencies(), [], 'and that is still there');
    t.truthy(await outcomeOf(close.run(scene)), 'which keeps it from closing');
    await settle(scene, []);
    await scene.end();
    total['one step fails'] = (total['one step fails'] ?? 0) + 1;
  }
});

test.serial('guest memory is created and faulted in, and any step fails', async (t) => {
  const ram = [
    { start: 0n, length: at(2), prefault: true },
    { start: at(4), length: at(1), private: true, prefault: true },
  ];
  const descriptors = (): number => readdirSync('/proc/self/fd').length;
  inject(() => false);
  await (await GuestMemory.create({ addressWidth: 20, ram })).close();
  const steps = heal().taken.length;
  t.is(steps, 2);
  for (let k = 0; k < steps; k++) {
    const before = descriptors();
    inject((step) => step === k);
    const outcome = await outcomeOf(GuestMemory.create({ addressWidth: 20, ram }));
    heal();
    t.true(outcome?.error instanceof PeerDmaError && outcome.error.code === 'ERR_SYSTEM');
    t.is(descriptors(), before);
    total['one step fails'] = (total['one step fails'] ?? 0) + 1;
  }
});

test.after(() => {
  const list = Object.entries(total).map(([what, count]) => `${what}: ${count}`);
  console.log(`# cases: ${list.join(', ')}`);
});
