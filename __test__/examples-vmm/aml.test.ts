/**
 * The example VMM encodes AML (ACPI 6.5, 20.2).
 */
import test from 'ava';
import { buffer, device, integer, name, packageOf, scope, text } from '../../examples/vmm/acpi/aml.ts';
import { zeros } from '../../examples/vmm/acpi/bytes.ts';

test('encodes an integer in as few bytes as possible', (t) => {
  t.deepEqual([integer(0), integer(1)], [[0x00], [0x01]]);
  t.deepEqual(
    [integer(2), integer(0xff)],
    [
      [0x0a, 2],
      [0x0a, 0xff],
    ],
  );
  t.deepEqual(
    [integer(0x100), integer(0xffff)],
    [
      [0x0b, 0, 1],
      [0x0b, 0xff, 0xff],
    ],
  );
  t.deepEqual(integer(0x1_0000), [0x0c, 0, 0, 1, 0]);
  t.deepEqual(integer(0xffff_ffff), [0x0c, 0xff, 0xff, 0xff, 0xff]);
  t.deepEqual(integer(1n << 32n), [0x0e, 0, 0, 0, 0, 1, 0, 0, 0]);
  t.deepEqual(integer((1n << 64n) - 1n), [0x0e, ...zeros(8).map(() => 0xff)]);
  t.throws(() => integer(1n << 64n), { instanceOf: RangeError });
  t.throws(() => integer(-1), { instanceOf: RangeError });
});

test('pads a name to four characters, and rejects one that is none', (t) => {
  t.deepEqual(name('_S5', integer(0)), [0x08, ...new TextEncoder().encode('_S5_'), 0]);
  for (const wrong of ['', 'FIVES', '5CPU', 'low', '\\_SB']) {
    const message = `a name in AML has up to four characters of A-Z, 0-9 and _, not ${wrong}`;
    t.throws(() => name(wrong, integer(0)), { message });
  }
});

test('encodes text, packages, scopes and devices', (t) => {
  const letters = (word: string): number[] => [...new TextEncoder().encode(word)];
  t.deepEqual(text('AB'), [0x0d, 0x41, 0x42, 0]);
  t.deepEqual(packageOf(integer(1), integer(7)), [0x12, 5, 2, 0x01, 0x0a, 7]);
  t.deepEqual(scope('_SB', [1], [2, 3]), [0x10, 8, ...letters('_SB_'), 1, 2, 3]);
  t.deepEqual(device('COM1', [9]), [0x5b, 0x82, 6, ...letters('COM1'), 9]);
});

test('encodes a length with as few bytes as possible, the length itself included', (t) => {
  // the contents are the length of the buffer, as an integer, and its bytes
  const head = (length: number): readonly number[] => buffer(zeros(length)).slice(1, 4);
  t.deepEqual(buffer(zeros(60)).slice(0, 4), [0x11, 63, 0x0a, 60]);
  t.deepEqual(head(61), [0x40 | 1, 4, 0x0a], 'of 2 bytes: 0x41');
  t.deepEqual(head(4090), [0x40 | 15, 0xff, 0x0b], 'of 2 bytes: 0xfff');
  t.deepEqual(head(4091), [0x80 | 1, 0x00, 0x01], 'of 3 bytes: 0x1001');
  t.deepEqual(buffer(zeros(1 << 20)).slice(1, 5), [0xc0 | 9, 0x00, 0x00, 0x01], 'of 4 bytes: 0x100009');
});
