// The layout of the page of `peerdma view`: the axis and the boxes of the columns.
import fc from 'fast-check';
import test from 'ava';
import { AddressRange, type MemorySnapshot, type RegionSnapshot } from '../../../ts/index.ts';
import { type AxisPart, axisOf, placesOn } from '../../../ts/web/view/axis.ts';
import type { Column } from '../../../ts/web/view/box.ts';
import { columnsOf } from '../../../ts/web/view/columns.ts';
import { elapsedText } from '../../../ts/web/view/elapsed-text.ts';
import { lanesFor } from '../../../ts/web/view/lanes.ts';
import { regionBoxes } from '../../../ts/web/view/region-column.ts';
import { roundedSize } from '../../../ts/size.ts';
import { at, guest, pages, taggedFile } from '../../support/pages.ts';
import { RecordingTarget } from '../../support/recording-target.ts';

/** Formats boxes as `0x0..0x1000 0 label`, with the lane before the label. */
function text({ boxes }: Column, parts: readonly AxisPart[]): string[] {
  return boxes.map(({ from, to, lane, label }) => `${parts[from]?.start}..${parts[to - 1]?.end} ${lane} ${label}`);
}

function shown(snapshot: MemorySnapshot): { parts: AxisPart[]; columns: Column[] } {
  const parts = axisOf(snapshot, []);
  return { parts, columns: columnsOf(snapshot, placesOn(parts)) };
}

test('the axis scales filled parts, keeps them legible, and folds gaps', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: at(0), length: at(300) },
      { start: at(1000), length: at(100) },
    ],
  });
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(1) });
  await bar.addMapping({ range: AddressRange.of(0n, at(1)), backing: { file: taggedFile(t, 'f', 1, 1), offset: 0n } });
  await bar.mapToGuest(at(500));
  const parts = axisOf(memory.inspect(), []);
  t.deepEqual(
    parts.map(({ start, gap }) => [BigInt(start), gap]),
    [
      [at(0), false],
      [at(300), true],
      [at(500), false],
      [at(501), true],
      [at(1000), false],
    ],
  );
  const [large = 0, gap, small = 0, other, third = 0] = parts.map(({ height }) => height);
  t.true(Math.abs(large / third - 3) < 0.1, `${large} to ${third} pixels for 300 to 100 pages`);
  t.true(small >= 16);
  t.is(gap, other, 'whatever is in it');
});

test('the axis covers the addresses of all moments of a journal', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(1) }] });
  const before = memory.inspect();
  const moved = {
    ...before.flat[0],
    start: '0x9000',
    end: '0xa000',
    region: 'r',
    kind: 'ram',
    writable: true,
    backing: 'f',
  } as const;
  const parts = axisOf(before, [{ flat: [[0, 1, [moved]]] }]);
  t.deepEqual(
    parts.map(({ start, end, gap }) => `${start}..${end} ${gap}`),
    ['0x0..0x1000 false', '0x1000..0x9000 true', '0x9000..0xa000 false'],
  );
});

test('overlapping regions are side by side, split into visible, hidden and trapped pieces', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(8) }] });
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(8) });
  await bar.addMapping({ range: AddressRange.of(0n, at(6)), backing: { file: taggedFile(t, 'f', 6, 1), offset: 0n } });
  await bar.mapToGuest(at(4));
  await memory.regions.addRegion({ name: 'idle', range: pages(64, 1) });
  const { parts, columns } = shown(memory.inspect());
  const [regions, flat] = columns;
  t.is(regions?.note, '1 not active');
  t.deepEqual(text(regions as Column, parts), [
    '0x0..0x8000 0 ram0',
    '0x4000..0x8000 1 hidden · bar',
    '0x8000..0xa000 1 bar',
    '0xa000..0xc000 1 trapped · bar',
  ]);
  t.deepEqual(text(flat as Column, parts), ['0x0..0x8000 0 ram0', '0x8000..0xa000 0 bar']);
  const facts = new Map(regions?.boxes[1]?.facts);
  t.is(facts.get('Hidden by'), '"ram0" (priority 100)');
  t.is(new Map(regions?.boxes[2]?.facts).get('Backing'), 'f+0x4000');
});

const hex = (value: number): string => `0x${value.toString(16)}`;

function regionAt(id: number, start: number, length: number, priority: number, memory: number[]): RegionSnapshot {
  const bounds = [...new Set(memory)].filter((offset) => offset <= length).sort((a, b) => a - b);
  const mappings = bounds.slice(0, -1).flatMap((from, index) => {
    const backing = `f+${hex(100 * id + from)}`;
    return index % 3 === 2 ? [] : [{ start: hex(from), end: hex(bounds[index + 1] ?? from), backing, writable: true }];
  });
  const range = { start: hex(start), end: hex(start + length) };
  const facts = { id, name: `r${id}`, kind: 'ram', priority, length: hex(length) } as const;
  return { ...facts, active: true, range, writable: true, mappings };
}

function snapshotOf(regions: RegionSnapshot[]): MemorySnapshot {
  return { addressWidth: 40, regions, flat: [], targets: [], quarantine: [] };
}

test('the pieces of regions match a model that computes each address', (t) => {
  const region = fc.tuple(
    fc.nat(30),
    fc.integer({ min: 1, max: 15 }),
    fc.nat(3),
    fc.array(fc.nat(15), { maxLength: 6 }),
  );
  const property = fc.property(fc.array(region, { minLength: 1, maxLength: 8 }), (list) => {
    const regions = list.map((one, id) => regionAt(id, ...one));
    const { parts, columns } = shown(snapshotOf(regions));
    const boxes = columns[0]?.boxes ?? [];
    const within = ({ start, end }: { start: string; end: string }, address: number): boolean =>
      Number(start) <= address && address < Number(end);
    for (const { id, name, range, mappings } of regions) {
      const own = boxes.filter(({ key }) => key.startsWith(`region ${id} `));
      for (let address = 0; address < 45; address++) {
        const box = own.find(({ from, to }) =>
          within({ start: parts[from]?.start ?? '', end: parts[to - 1]?.end ?? '' }, address),
        );
        const there = regions.filter((one) => within(one.range ?? { start: '0x0', end: '0x0' }, address));
        const [top] = there.sort((a, b) => b.priority - a.priority || a.id - b.id);
        const has = mappings.some((mapping) => within(mapping, address - Number(range?.start)));
        const due = there.every((one) => one.id !== id)
          ? undefined
          : `${top?.id === id ? (has ? '' : 'trapped · ') : 'hidden · '}${name}`;
        if (box?.label !== due) throw new Error(`${box?.label} instead of ${due} at ${address}`);
      }
      for (const [index, { to }] of own.entries()) {
        if ((own[index + 1]?.from ?? to) !== to) throw new Error('a region has no gaps');
      }
    }
    for (const [index, box] of boxes.entries()) {
      const beside = boxes
        .slice(0, index)
        .filter(({ from, to, lane }) => lane === box.lane && from < box.to && box.from < to);
      if (beside.length > 0) throw new Error('two boxes are at one place');
    }
  });
  t.notThrows(() => fc.assert(property, { numRuns: 300 }));
});

/** A list that counts reads of its elements. */
function counted<T extends object>(list: T, note: () => void): T {
  return new Proxy(list, {
    get(target, key, receiver) {
      if (typeof key === 'string' && /^\d+$/.test(key)) note();
      return Reflect.get(target, key, receiver) as unknown;
    },
  });
}

test('lanes and pieces take about linear time in the number of boxes', (t) => {
  const readsOf = (count: number): { lanes: number; pieces: number } => {
    let lanes = 0;
    let pieces = 0;
    const ends = Array.from({ length: count }, (_, index) =>
      counted([2 * index, 2 * index + 2] as const, () => lanes++),
    );
    t.deepEqual(new Set(lanesFor(ends)), new Set([0]));
    const regions = Array.from({ length: count }, (_, index) => regionAt(index, index, 1, 0, [0, 1]));
    const tops = counted(
      regions.map((region, index) => ({ from: index, to: index + 1, region })),
      () => pieces++,
    );
    const addresses = Array.from({ length: count + 1 }, (_, index) => hex(index));
    const places = new Map(addresses.map((address, index) => [address, index]));
    for (const [index, region] of regions.entries()) {
      regionBoxes({ region, from: index, to: index + 1, lane: 0, tops, places, addresses });
    }
    return { lanes, pieces };
  };
  const [few, many] = [readsOf(100), readsOf(1600)];
  t.true(many.lanes <= 16 * few.lanes, JSON.stringify([few, many]));
  t.true(many.pieces <= 16 * 2 * few.pieces, JSON.stringify([few, many])); // a binary search for each region
});

test('a box keeps its key when its region moves', async (t) => {
  const memory = await guest(t);
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'A' }));
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(1) });
  await bar.addMapping({ range: AddressRange.of(0n, at(1)), backing: { file: taggedFile(t, 'f', 1, 1), offset: 0n } });
  await bar.mapToGuest(at(4));
  const keys = () => shown(memory.inspect()).columns.map(({ boxes }) => boxes.map(({ key }) => key));
  const before = keys();
  await bar.mapToGuest(at(8));
  t.deepEqual(keys(), before);
  t.is(before.length, 3);
});

test('empty guest memory has columns', async (t) => {
  const memory = await guest(t);
  const { parts, columns } = shown(memory.inspect());
  t.deepEqual(parts, []);
  t.deepEqual(
    columns.map(({ boxes }) => boxes.length),
    [0, 0],
  );
});

test('formats lengths and elapsed times', (t) => {
  const lengths: readonly (readonly [bigint, string])[] = [
    [1n, '1 bytes'],
    [1023n, '1023 bytes'],
    [4096n, '4 KiB'],
    [(3n << 30n) / 2n, '1.50 GiB'],
    [1n << 64n, '16 EiB'],
  ];
  for (const [length, words] of lengths) t.is(roundedSize(length), words);
  t.is(elapsedText('2026-01-01T00:00:00.000Z', '2026-01-01T00:00:01.250Z'), '+1.250 s');
  t.is(elapsedText('2026-01-01T00:00:00.000Z', 'no time'), 'no time');
});
