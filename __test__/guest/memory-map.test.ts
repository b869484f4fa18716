// The memory map as a value: a draft does not change its origin.
import test from 'ava';
import { AddressRange } from '../../ts/index.ts';
import { MemoryMap, type MemoryMapDraft } from '../../ts/guest/memory-map.ts';
import type { RegionState } from '../../ts/guest/region-state.ts';
import { IntervalMap } from '../../ts/interval-map.ts';
import { openBacking, type MemorySlice, MemoryOwner } from '../../ts/memory/backing.ts';
import { throwsCode } from '../support/errors.ts';
import { at, pages } from '../support/pages.ts';

function region(id: number, count: number, priority = 0): RegionState {
  return {
    id,
    name: `r${id}`,
    kind: 'ram',
    priority,
    length: at(count),
    writable: true,
    mappings: new IntervalMap(),
    mappedLength: 0n,
  };
}

function whole(draft: MemoryMapDraft, id: number, count: number, first: number, memory?: MemorySlice): void {
  const range = pages(0, count);
  draft.addMapping(id, { range, memory: memory ?? openBacking('private', range.length), writable: true });
  draft.activate(id, pages(first, count), true);
}

const text = (map: MemoryMap): string[] => map.flat.values().map(({ range, name }) => `${range} ${name}`);

test('a discarded draft leaves nothing behind', (t) => {
  const first = MemoryMap.empty().draft();
  first.add(region(0, 4));
  whole(first, 0, 4, 0);
  const { next: map } = first.finish();
  const before = text(map);

  const dropped = map.draft();
  dropped.add(region(1, 2, 1));
  whole(dropped, 1, 2, 1);
  dropped.removeMappings(0, pages(0, 1));
  dropped.remove(0);
  dropped.finish();
  t.deepEqual(text(map), before);
  t.is(map.regions().length, 1);

  const again = map.draft();
  again.add(region(1, 2, 1));
  whole(again, 1, 2, 1);
  t.deepEqual(text(again.finish().next), ['0x0..0x1000 r0', '0x1000..0x3000 r1', '0x3000..0x4000 r0']);
  t.deepEqual(text(map), before);
});

test('several edits of one draft are one change', (t) => {
  const first = MemoryMap.empty().draft();
  first.add(region(0, 2));
  whole(first, 0, 2, 0);
  const { next: map } = first.finish();

  const draft = map.draft();
  draft.deactivate(0);
  draft.activate(0, pages(8, 2), true);
  draft.activate(0, pages(0, 2), true);
  const { change } = draft.finish();
  t.deepEqual([change.removed, change.added], [[], []]);
});

test('the memory of a mapping is released when its last piece is removed, and not before', (t) => {
  let released = 0;
  const memory = { ...openBacking('private', at(4)), owner: new MemoryOwner(() => released++) };
  let map = MemoryMap.empty();
  const step = (edit: (draft: MemoryMapDraft) => void): number => {
    const draft = map.draft();
    edit(draft);
    const { next, pieces } = draft.finish();
    map = next;
    for (const [owner, change] of pieces) owner.count(change);
    return released;
  };
  const releasedAfter = [
    step((draft) => {
      draft.add(region(0, 4));
      whole(draft, 0, 4, 0, memory);
    }),
    step((draft) => draft.deactivate(0)),
    step((draft) => draft.removeMappings(0, pages(1, 2))),
    step((draft) => draft.activate(0, pages(4, 4), false)),
    step((draft) => draft.removeMappings(0, pages(0, 1))),
    step((draft) => draft.removeMappings(0, pages(3, 1))),
    step((draft) => draft.remove(0)),
  ];
  t.deepEqual(releasedAfter, [0, 0, 0, 0, 0, 1, 1]);
  memory.private?.close();
});

test('a region that is removed takes its private memory with it', (t) => {
  const memory = openBacking('private', at(2));
  const first = MemoryMap.empty().draft();
  first.add(region(0, 2));
  whole(first, 0, 2, 0, memory);
  const draft = first.finish().next.draft();
  draft.remove(0);
  const { pieces, next, change } = draft.finish();
  t.deepEqual([...pieces], [[memory.owner, -1]]);
  t.deepEqual(next.regions(), []);
  t.deepEqual(
    change.removed.map(({ range }) => range),
    [AddressRange.of(0n, at(2))],
  );
  throwsCode(t, () => next.draft().region(0), 'ERR_REGION_REMOVED');
  memory.private?.close();
});
