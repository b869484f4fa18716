/**
 * Long lists of sub-mappings: the event loop has its turns, and sees all of a list or nothing.
 */
import { setImmediate } from 'node:timers/promises';
import test from 'ava';
import type { NativeReservation } from '#native';
import { CustomTarget } from '../../ts/dma/custom-target.ts';
import type { SubMapping } from '../../ts/dma/sub-mapping.ts';
import { TargetMappings } from '../../ts/dma/target-mappings.ts';
import { readTarget } from '../../ts/dma/target-traits.ts';
import { IntervalMap } from '../../ts/interval-map.ts';
import { PrivateMemory } from '../../ts/memory/private-memory.ts';
import { MemoryOwner } from '../../ts/memory/backing.ts';
import { openHostMemory } from '../../ts/memory/host-memory.ts';
import type { VaMapper } from '../../ts/memory/va-mapper.ts';
import { pages } from '../support/pages.ts';

const COUNT = 3000;

/** Sub-mappings of RAM. Reading the kind of one of them takes longer than a part between two turns. */
function slowList(): SubMapping[] {
  const owner = new MemoryOwner(() => {});
  const memory = { private: new PrivateMemory(4096n), offset: 0n, owner };
  return Array.from({ length: COUNT }, (_, index) => ({
    range: pages(2 * index, 1),
    memory,
    writable: true,
    isInHostView: true,
    name: 'ram',
    regionId: 0,
    get kind() {
      const end = performance.now() + (index === 100 ? 5 : 0);
      while (performance.now() < end);
      return 'ram' as const;
    },
  }));
}

test('tracks a long list at once, after turns of the event loop', async (t) => {
  const subs = slowList();
  const all = new IntervalMap<SubMapping>();
  for (const sub of subs) all.insert(sub);
  for (const map of [undefined, all]) {
    const mappings = new TargetMappings();
    const turn = setImmediate().then(() => mappings.values().length);
    await mappings.track(subs, () => true, { all: map });
    t.is(mappings.values().length, COUNT);
    t.is(await turn, 0, 'the turn comes before the list is recorded');
  }
});

test('releases the leased part of a long list when another part cannot be leased', async (t) => {
  const released: [number, number][] = [];
  const releaseLeases = (first: number, count: number): void => void released.push([first, count]);
  const reservation = { releaseLeases } as unknown as NativeReservation;
  let leased = 0;
  const lease = (subs: readonly SubMapping[]) => {
    if (leased > 2000) throw new Error('no lease');
    const first = leased + 1;
    leased += subs.length;
    return subs.map(({ range }, index) => openHostMemory(reservation, first + index, range));
  };
  const never = (): never => t.fail('the target is not called') as never;
  const target = new CustomTarget(readTarget({ name: 'va', needsVa: true, mapDma: never, unmapDma: never }));
  const failure = await target.map(slowList(), () => ({ lease }) as unknown as VaMapper);
  t.regex(failure?.error.message ?? '', /no lease/);
  t.is(leased, 2048);
  t.deepEqual(released, [
    [1, 1024],
    [1025, 1024],
  ]);
});
