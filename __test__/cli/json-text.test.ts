/**
 * JSON is written in pieces, so its length is not limited by that of a string.
 */
import test from 'ava';
import { jsonPieces } from '../../ts/cli/json-text.ts';
import { wholeDocument } from '../../ts/cli/topology/whole-document.ts';
import { AddressRange } from '../../ts/index.ts';
import { throwsCode } from '../support/errors.ts';

const VALUE = {
  empty: [[], {}, { missing: undefined }],
  plain: [1, -0.5, true, null, undefined, 'a "b"\\\n', '𝄞\u001b'],
  'a name\n': { deep: [[[{ address: 0x1000n }]]] },
  range: AddressRange.of(0n, 4096n),
};

function piecesOf(value: unknown, length?: number): string[] {
  return [...jsonPieces(value, length)];
}

test('writes the text of JSON.stringify in pieces of a given length', (t) => {
  const text = JSON.stringify(VALUE, (_, each: unknown) => (typeof each === 'bigint' ? '0x1000' : each), 2);
  for (const length of [1, 20, 100, undefined]) t.is(piecesOf(VALUE, length).join(''), text);
  for (const value of [null, 'a', 7, [], {}]) t.is(piecesOf(value).join(''), JSON.stringify(value));
  const longest = Math.max(...piecesOf(Array(1000).fill({ name: 'x'.repeat(10) }), 50).map(({ length }) => length));
  t.true(longest < 100, `${longest} characters`);
  t.is(piecesOf(VALUE).length, 1);
});

test('escapes terminal control characters', (t) => {
  const text = piecesOf(['\u009b2J\u202e'], 1).join('');
  t.is(text, '[\n  "\\u009b2J\\u202e"\n]');
});

test('rejects a picture or page that exceeds the length limit of a string, with the remedy', (t) => {
  t.is(
    wholeDocument('the page', 2, () => 'text'),
    'text',
  );
  const error = throwsCode(t, () => wholeDocument('the page', 620, () => 'x'.repeat(2 ** 30)), 'ERR_INVALID_ARGUMENT');
  t.is(
    error.message,
    'the page of 620 devices exceeds the length limit of a string. Name fewer devices, or use --json, which has no limit',
  );
  const other = new RangeError('toString() radix must be between 2 and 36');
  t.is(t.throws(() => wholeDocument('the page', 2, () => { throw other; })), other); // prettier-ignore
});
