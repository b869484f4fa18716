// Half-open ranges of addresses.
import test from 'ava';
import { AddressRange } from '../ts/index.ts';
import { throwsCode } from './support/errors.ts';

const U64 = 1n << 64n;

test('a range has a start, an end, a length and a text', (t) => {
  const range = AddressRange.of(0x1000n, 0x1000n);
  t.deepEqual([range.start, range.end, range.length], [0x1000n, 0x2000n, 0x1000n]);
  t.is(String(range), '0x1000..0x2000');
  t.is(JSON.stringify({ range }), '{"range":"0x1000..0x2000"}');
});

test('a range may end with the last address of 64 bits, but not later', (t) => {
  t.is(AddressRange.of(0n, U64).end, U64);
  t.is(AddressRange.of(U64 - 1n, 1n).end, U64);
  throwsCode(t, () => AddressRange.of(U64 - 1n, 2n), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => AddressRange.of(U64, 1n), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => AddressRange.of(1n, U64), 'ERR_OUT_OF_RANGE');
});

test('rejects an empty range', (t) => {
  throwsCode(t, () => AddressRange.of(0x1000n, 0n), 'ERR_EMPTY_RANGE');
});

test('rejects values that are not addresses', (t) => {
  for (const value of [-1n, 0, 1, NaN, Infinity, '1', '', null, undefined, {}, [], Object(1n), true, Symbol('s')]) {
    throwsCode(t, () => AddressRange.of(value as bigint, 1n), 'ERR_INVALID_ARGUMENT', `start ${String(value)}`);
    throwsCode(t, () => AddressRange.of(1n, value as bigint), 'ERR_INVALID_ARGUMENT', `length ${String(value)}`);
  }
});

test('contains, overlaps and equals are exact at the edges', (t) => {
  const range = AddressRange.of(10n, 10n);
  const other = (start: bigint, end: bigint): AddressRange => AddressRange.of(start, end - start);
  t.deepEqual(
    [9n, 10n, 19n, 20n].map((address) => range.contains(address)),
    [false, true, true, false],
  );
  t.true(range.contains(range) && range.contains(other(10n, 11n)) && range.contains(other(19n, 20n)));
  t.false(range.contains(other(9n, 11n)) || range.contains(other(19n, 21n)) || range.contains(other(0n, 30n)));
  t.true(range.overlaps(other(0n, 11n)) && range.overlaps(other(19n, 30n)) && range.overlaps(other(0n, 30n)));
  t.false(range.overlaps(other(0n, 10n)) || range.overlaps(other(20n, 30n)));
  t.true(range.equals(other(10n, 20n)));
  t.false(range.equals(other(10n, 19n)) || range.equals(other(11n, 20n)));
});
