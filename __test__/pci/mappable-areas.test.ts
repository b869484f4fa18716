/** The parts of a BAR that can be mapped into guest memory. */
import test from 'ava';
import fc from 'fast-check';
import { AddressRange } from '../../ts/index.ts';
import { mappableAreas, trappedAreas } from '../../ts/pci/mappable-areas.ts';
import { seedOf } from '../support/seed.ts';

const PAGE = 4096n;
const range = (start: bigint, end: bigint): AddressRange => AddressRange.of(start, end - start);
const shown = (areas: readonly AddressRange[]): string[] => areas.map(String);

test('maps all of a BAR without emulated structures', (t) => {
  const bar = { length: 0x10000n, mmapAreas: [range(0n, 0x10000n)] };
  const areas = mappableAreas(bar, [], PAGE);
  t.deepEqual(shown(areas), ['0x0..0x10000']);
  t.deepEqual(trappedAreas(0x10000n, areas), []);
});

test('excludes the pages of the MSI-X table and the pending bits', (t) => {
  const bar = { length: 0x10000n, mmapAreas: [range(0n, 0x10000n)] };
  const areas = mappableAreas(bar, [range(0x2000n, 0x2410n), range(0x3800n, 0x3808n)], PAGE);
  t.deepEqual(shown(areas), ['0x0..0x2000', '0x4000..0x10000']);
  t.deepEqual(shown(trappedAreas(0x10000n, areas)), ['0x2000..0x4000']);
  const apart = mappableAreas(bar, [range(0xf000n, 0xf040n), range(0n, 0x40n)], PAGE);
  t.deepEqual(shown(apart), ['0x1000..0xf000']);
});

test('keeps the areas of a sparse BAR separate, in whole pages', (t) => {
  const sparse = { length: 0x8000n, mmapAreas: [range(0x800n, 0x2800n), range(0x4000n, 0x8000n)] };
  t.deepEqual(shown(mappableAreas(sparse, [], PAGE)), ['0x1000..0x2000', '0x4000..0x8000']);
  t.deepEqual(shown(mappableAreas(sparse, [range(0x5000n, 0x5010n)], PAGE)), [
    '0x1000..0x2000',
    '0x4000..0x5000',
    '0x6000..0x8000',
  ]);
});

test('traps a BAR that is smaller than a page or not mappable', (t) => {
  t.deepEqual(mappableAreas({ length: 0x100n, mmapAreas: [range(0n, 0x100n)] }, [], PAGE), []);
  t.deepEqual(mappableAreas({ length: 0x100n, mmapAreas: [range(0n, 0x1000n)] }, [], PAGE), []);
  t.deepEqual(mappableAreas({ length: 0x10000n, mmapAreas: [] }, [], PAGE), []);
  t.deepEqual(mappableAreas({ length: 0x1000n, mmapAreas: [range(0n, 0x1000n)] }, [range(0x10n, 0x20n)], PAGE), []);
  t.deepEqual(shown(trappedAreas(0x100n, [])), ['0x0..0x100']);
});

test('maps exactly the pages without emulated and unmappable bytes', (t) => {
  const bounds = fc.tuple(fc.integer({ min: 0, max: 63 }), fc.integer({ min: 1, max: 24 }));
  const toRange = ([at, length]: readonly [number, number]): AddressRange =>
    AddressRange.of(BigInt(at) * 1024n, BigInt(length) * 1024n);
  fc.assert(
    fc.property(fc.array(bounds, { maxLength: 3 }), fc.array(bounds, { maxLength: 3 }), (mmap, emulated) => {
      const length = 64n * 1024n;
      const sorted = mmap
        .map(toRange)
        .toSorted((a, b) => Number(a.start - b.start))
        .filter((area, index, all) => index === 0 || area.start >= (all[index - 1] as AddressRange).end);
      const holes = emulated.map(toRange);
      const areas = mappableAreas({ length, mmapAreas: sorted }, holes, PAGE);
      for (let page = 0n; page < length; page += PAGE) {
        const whole = AddressRange.of(page, PAGE);
        const expected = sorted.some((area) => area.contains(whole)) && !holes.some((hole) => hole.overlaps(whole));
        if (areas.some((area) => area.contains(whole)) !== expected) return false;
        if (trappedAreas(length, areas).some((area) => area.contains(whole)) === expected) return false;
      }
      return true;
    }),
    { seed: seedOf(t), numRuns: 500 },
  );
  t.pass();
});
