/**
 * Sets of pages as bitmaps, compared with sets of page numbers.
 */
import test from 'ava';
import fc from 'fast-check';
import { AddressRange } from '../../ts/index.ts';
import { DirtyPages } from '../../ts/dma/dirty-pages.ts';
import { seedOf } from '../support/seed.ts';

const SIZES = [4096n, 65536n] as const;

/** Pages by number, counted from address 0. */
interface Stretch {
  readonly first: number;
  readonly count: number;
  readonly pages: ReadonlySet<number>;
}

function range({ first, count }: Pick<Stretch, 'first' | 'count'>, size: bigint): AddressRange {
  return AddressRange.of(BigInt(first) * size, BigInt(count) * size);
}

function make({ first, count, pages }: Stretch, size: bigint): DirtyPages {
  const made = new DirtyPages(range({ first, count }, size), size);
  for (const page of pages) {
    const bit = page - first;
    const word = bit >> 6;
    made.bitmap[word] = (made.bitmap[word] ?? 0n) | (1n << BigInt(bit & 63));
  }
  return made;
}

/** All queries. */
function numbers(pages: DirtyPages, size: bigint): number[] {
  const first = Number(pages.range.start / size);
  const end = Number(pages.range.end / size);
  const found: number[] = [];
  for (let page = Math.max(0, first - 70); page < end + 70; page++) {
    const gpa = BigInt(page) * size;
    const has = pages.contains(gpa);
    if (has !== pages.contains(gpa + size - 1n)) throw new Error(`page ${page} is partly contained`);
    if (has) found.push(page);
  }
  return found;
}

/** The expected result of `ranges()`, from the numbers. */
function runs(pages: readonly number[], size: bigint): string[] {
  const found: { first: number; count: number }[] = [];
  for (const page of pages) {
    const last = found.at(-1);
    if (last !== undefined && last.first + last.count === page) last.count++;
    else found.push({ first: page, count: 1 });
  }
  return found.map((run) => String(range(run, size)));
}

function compare(pages: DirtyPages, due: ReadonlySet<number>, size: bigint): void {
  const wanted = [...due].sort((a, b) => a - b);
  const same = (what: string, is: unknown, should: unknown): void => {
    if (String(is) !== String(should)) throw new Error(`${what}: ${String(is)} instead of ${String(should)}`);
  };
  same('has', numbers(pages, size), wanted);
  same('count', pages.count, wanted.length);
  same('ranges', [...pages.ranges()], runs(wanted, size));
}

/** Mostly near word boundaries. */
const length = fc.oneof(fc.constantFrom(1, 63, 64, 65, 127, 128, 129, 200), fc.integer({ min: 1, max: 200 }));
const start = fc.oneof(fc.constantFrom(0, 1, 63, 64, 65, 100, 128, 191), fc.nat(260));
const stretch: fc.Arbitrary<Stretch> = fc
  .tuple(start, length)
  .chain(([first, count]) =>
    fc
      .oneof(
        fc.array(fc.nat(count - 1), { maxLength: 60 }),
        fc.constant(Array.from({ length: count }, (_, page) => page)),
        fc.constantFrom([0], [count - 1], [0, count - 1]),
      )
      .map((offsets) => ({ first, count, pages: new Set(offsets.map((offset) => first + offset)) })),
  );

test('adds pages of other ranges and removes pages, as sets of numbers do', (t) => {
  const action = fc.oneof(
    stretch.map((other) => ({ other, removed: undefined })),
    fc.record({ first: start, count: length }).map((removed) => ({ other: undefined, removed })),
  );
  const property = fc.property(
    fc.constantFrom(...SIZES),
    stretch,
    fc.array(action, { maxLength: 6 }),
    (size, base, actions) => {
      const pages = make(base, size);
      const due = new Set(base.pages);
      compare(pages, due, size);
      for (const { other, removed } of actions) {
        if (other !== undefined) {
          const added = make(other, size);
          pages.add(added);
          for (const page of other.pages) if (page >= base.first && page < base.first + base.count) due.add(page);
          compare(added, other.pages, size); // it stays unchanged
        } else {
          pages.remove(range(removed, size));
          for (let page = removed.first; page < removed.first + removed.count; page++) due.delete(page);
        }
        compare(pages, due, size);
      }
      return true;
    },
  );
  fc.assert(property, { seed: seedOf(t), numRuns: 2000 });
  t.pass();
});

test('has no page in an empty set, and a bit for each page', (t) => {
  for (const [count, words] of [
    [1, 1],
    [64, 1],
    [65, 2],
    [128, 2],
  ] as const) {
    const pages = new DirtyPages(range({ first: 3, count }, 4096n), 4096n);
    t.is(pages.bitmap.length, words);
    t.is(pages.count, 0);
    t.deepEqual([...pages.ranges()], []);
  }
});

test('adds no page beyond the end of the range, although the last word has room for it', (t) => {
  const full = new DirtyPages(range({ first: 0, count: 128 }, 4096n), 4096n, BigUint64Array.of(~0n, ~0n));
  const into = new DirtyPages(range({ first: 60, count: 8 }, 4096n), 4096n);
  into.add(full);
  t.is(into.count, 8);
  t.deepEqual([...into.ranges()].map(String), ['0x3c000..0x44000']);
  t.false(into.contains(59n * 4096n));
  t.false(into.contains(68n * 4096n));
  t.deepEqual([...into.bitmap], [0xffn], 'the bitmap has no more bits');
  const odd = new DirtyPages(range({ first: 0, count: 70 }, 4096n), 4096n, BigUint64Array.of(~0n, ~0n));
  t.deepEqual(
    [69n, 70n].map((page) => odd.contains(page * 4096n)),
    [true, false],
  );
});

test('joins adjacent pages to ranges', (t) => {
  const word = fc.oneof(fc.constantFrom(0n, (1n << 64n) - 1n), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }));
  fc.assert(
    fc.property(fc.array(word, { minLength: 1, maxLength: 6 }), fc.integer({ min: 0, max: 63 }), (words, missing) => {
      const count = words.length * 64 - missing;
      const pages = new DirtyPages(AddressRange.of(0x10000n, BigInt(count) * 4096n), 4096n, BigUint64Array.from(words));
      const single: bigint[] = [];
      for (let page = 0; page < count; page++) {
        const gpa = 0x10000n + BigInt(page) * 4096n;
        if (pages.contains(gpa)) single.push(gpa);
      }
      const ranges = [...pages.ranges()];
      for (const [index, range] of ranges.entries()) {
        const next = ranges[index + 1];
        t.true(next === undefined || range.end < next.start, 'sorted, and adjacent ranges joined');
      }
      t.deepEqual(
        ranges.flatMap(({ start, end }) =>
          Array.from({ length: Number((end - start) / 4096n) }, (_, page) => start + BigInt(page) * 4096n),
        ),
        single,
      );
    }),
  );
});
