// The difference between two flat maps.
import fc from 'fast-check';
import test from 'ava';
import { AddressRange } from '../../ts/index.ts';
import type { SharedFile } from '../../ts/memory/shared-file.ts';
import type { SubMapping } from '../../ts/dma/sub-mapping.ts';
import { MemoryOwner } from '../../ts/memory/backing.ts';
import { diffFlat } from '../../ts/guest/flat-diff.ts';
import { IntervalMap } from '../../ts/interval-map.ts';

/** Files by name: the code under test compares them by identity. */
const FILES = ['a', 'b', 'c'].map((name) => ({ name }) as SharedFile);

interface Options {
  readonly file?: number;
  readonly offset?: number;
  readonly writable?: boolean;
  readonly region?: number;
}

const NOBODY = new MemoryOwner(() => {});

function sub(start: number, end: number, options: Options = {}): SubMapping {
  const { file = 0, offset = start, writable = true, region = 0 } = options;
  const backing = FILES[file];
  if (backing === undefined) throw new Error(`there is no file ${file}`);
  return {
    range: AddressRange.of(BigInt(start), BigInt(end - start)),
    memory: { file: backing, offset: BigInt(offset), transparentHugePages: false, faultInFirst: false, owner: NOBODY },
    writable,
    kind: 'ram',
    name: `r${region}`,
    regionId: region,
    isInHostView: false,
  };
}

function flatOf(subs: readonly SubMapping[]): IntervalMap<SubMapping> {
  const flat = new IntervalMap<SubMapping>();
  for (const one of subs) flat.insert(one);
  return flat;
}

/** The sub-mappings of a new map in a range, cut to the range, as the regions resolve it. */
function resolver(all: readonly SubMapping[]): (range: AddressRange) => SubMapping[] {
  return (range) =>
    all
      .filter((one) => one.range.overlaps(range))
      .map((one) => {
        const start = one.range.start > range.start ? one.range.start : range.start;
        const end = one.range.end < range.end ? one.range.end : range.end;
        const memory = { ...one.memory, offset: one.memory.offset + (start - one.range.start) } as SubMapping['memory'];
        return { ...one, range: AddressRange.of(start, end - start), memory };
      });
}

const span = (start: number, end: number): AddressRange => AddressRange.of(BigInt(start), BigInt(end - start));
const text = (subs: readonly SubMapping[]): string[] =>
  subs.map(({ range, memory }) => `${range.start}-${range.end} ${memory.file?.name}+${memory.offset}`);

function change(before: readonly SubMapping[], touched: readonly AddressRange[], after: readonly SubMapping[]) {
  const { change: result, flat } = diffFlat(flatOf(before), touched, resolver(after));
  return { removed: text(result.removed), added: text(result.added), flat: text(flat.values()) };
}

test('keeps a sub-mapping that is the same, even in a touched range', (t) => {
  const all = [sub(0, 4), sub(4, 8, { file: 1 })];
  t.deepEqual(change(all, [span(0, 8)], all), { removed: [], added: [], flat: text(all) });
});

test('removes a sub-mapping that is cut, and adds its pieces', (t) => {
  t.deepEqual(change([sub(0, 8)], [span(2, 4)], [sub(0, 2), sub(4, 8)]), {
    removed: ['0-8 a+0'],
    added: ['0-2 a+0', '4-8 a+4'],
    flat: ['0-2 a+0', '4-8 a+4'],
  });
});

test('keeps pieces that were cut before, and fills the gap between them', (t) => {
  t.deepEqual(change([sub(0, 2), sub(4, 8)], [span(2, 4)], [sub(0, 8)]), {
    removed: [],
    added: ['2-4 a+2'],
    flat: ['0-2 a+0', '2-4 a+2', '4-8 a+4'],
  });
  t.deepEqual(change([sub(2, 4)], [span(0, 8)], [sub(0, 8)]), {
    removed: [],
    added: ['0-2 a+0', '4-8 a+4'],
    flat: ['0-2 a+0', '2-4 a+2', '4-8 a+4'],
  });
});

test('replaces a sub-mapping when its file, offset, writability or region changes', (t) => {
  for (const other of [{ file: 1 }, { offset: 1 }, { writable: false }, { region: 1 }]) {
    const { removed, added } = change([sub(0, 4)], [span(0, 4)], [sub(0, 4, other)]);
    t.is(removed.length, 1, JSON.stringify(other));
    t.is(added.length, 1, JSON.stringify(other));
  }
});

test('does not read sub-mappings beside the touched range', (t) => {
  const asked: string[] = [];
  const before = [sub(0, 4), sub(4, 8, { file: 1 }), sub(8, 12, { file: 2 })];
  const { change: result } = diffFlat(flatOf(before), [span(5, 6)], (range) => {
    asked.push(`${range.start}-${range.end}`);
    return resolver([sub(0, 4), sub(8, 12, { file: 2 })])(range);
  });
  t.deepEqual(asked, ['4-8']);
  t.deepEqual(text(result.removed), ['4-8 b+4']);
  t.deepEqual(result.added, []);
});

/** A random map, with three random bits for each address. */
const flatMap = fc
  .array(fc.record({ file: fc.integer({ min: -1, max: 2 }), writable: fc.boolean(), cut: fc.boolean() }), {
    minLength: 16,
    maxLength: 16,
  })
  .map((cells) => {
    const subs: SubMapping[] = [];
    for (const [at, { file, writable, cut }] of cells.entries()) {
      if (file < 0) continue;
      const last = subs.at(-1);
      const next = sub(at, at + 1, { file, writable });
      if (
        last !== undefined &&
        !cut &&
        last.range.end === BigInt(at) &&
        last.memory.file === next.memory.file &&
        last.writable === writable
      ) {
        subs[subs.length - 1] = sub(Number(last.range.start), at + 1, { file, writable });
      } else subs.push(next);
    }
    return subs;
  });

test('random changes result in the flat map of the regions, without needless unmaps', (t) => {
  const cells = (subs: readonly SubMapping[]): string[] =>
    subs.flatMap(({ range, memory, writable }) => {
      const found: string[] = [];
      for (let at = range.start; at < range.end; at++) {
        found.push(`${at} ${memory.file?.name}+${memory.offset + at - range.start} ${writable}`);
      }
      return found;
    });
  const property = fc.property(
    flatMap,
    flatMap,
    fc.array(fc.nat(15), { minLength: 1, maxLength: 4 }),
    (before, next, points) => {
      const touched = points.map((at) => span(at, Math.min(at + 3, 16)));
      // The regions resolve to the new map in the touched ranges, and to the old one elsewhere.
      const inTouched = (at: bigint): boolean => touched.some((range) => range.contains(at));
      const due = [
        ...cells(before).filter((cell) => !inTouched(BigInt(cell.split(' ')[0] ?? ''))),
        ...cells(next).filter((cell) => inTouched(BigInt(cell.split(' ')[0] ?? ''))),
      ].sort();
      const after: SubMapping[] = [];
      for (let at = 0; at < 16; at++) {
        const source = inTouched(BigInt(at)) ? next : before;
        const found = resolver(source)(span(at, at + 1))[0];
        if (found !== undefined) after.push(found);
      }
      const joined: SubMapping[] = []; // as regions resolve it: in the longest ranges
      for (const one of after) {
        const last = joined.at(-1);
        if (
          last !== undefined &&
          last.range.end === one.range.start &&
          last.memory.file === one.memory.file &&
          last.writable === one.writable
        ) {
          joined[joined.length - 1] = {
            ...last,
            range: AddressRange.of(last.range.start, one.range.end - last.range.start),
          };
        } else joined.push(one);
      }
      const old = flatOf(before);
      const oldText = text(old.values()).join();
      const { change: result, flat } = diffFlat(old, touched, resolver(joined));
      const values = flat.values();
      if (text(old.values()).join() !== oldText) throw new Error('the old map has changed');
      if (cells(values).sort().join('\n') !== due.join('\n'))
        throw new Error(`${text(values).join()}: not the expected flat map`);
      for (const [index, one] of values.entries()) {
        const following = values[index + 1];
        if (following !== undefined && one.range.overlaps(following.range))
          throw new Error('the new map overlaps itself');
      }
      const dueSet = new Set(due);
      for (const one of result.removed) {
        if (!before.includes(one)) throw new Error('removes a sub-mapping that the old map does not have');
        if (cells([one]).every((cell) => dueSet.has(cell)))
          throw new Error(`${text([one]).join()} is removed, but the new map has the same memory there`);
      }
      for (const one of result.added) {
        if (before.some((was) => !result.removed.includes(was) && was.range.overlaps(one.range))) {
          throw new Error('adds a sub-mapping over an unchanged one');
        }
      }
    },
  );
  t.notThrows(() => fc.assert(property, { numRuns: 1000 }));
});
