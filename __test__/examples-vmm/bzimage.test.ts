/**
 * The example VMM reads the file of a kernel.
 */
import test from 'ava';
import { parseBzImage } from '../../examples/vmm/boot/bzimage.ts';
import { CODE_START, KERNEL, MAX_COMMAND_LINE, MAX_INITRD_ADDRESS, fakeBzImage } from './support/bzimage.ts';

test('reads the header of a bzImage', (t) => {
  const file = fakeBzImage();
  const { header, code, ...rest } = parseBzImage(file);
  t.deepEqual(header, file.subarray(0x1f1, 0x26c));
  t.deepEqual(code, file.subarray(CODE_START));
  const maxInitrdAddress = BigInt(MAX_INITRD_ADDRESS);
  t.deepEqual(rest, { ...KERNEL, maxCommandLine: MAX_COMMAND_LINE, maxInitrdAddress });
});

test('reads 4 setup sectors from a header that has 0', (t) => {
  const file = fakeBzImage({ 0x1f1: [1, 0], 0x1f4: [4, 16] });
  t.deepEqual(parseBzImage(file).code, file.subarray(5 * 512));
});

test('requires RAM for the whole file from a kernel with a small init_size', (t) => {
  t.is(parseBzImage(fakeBzImage({ 0x260: [4, 1] })).size, 0x1000n);
});

test('copies the header up to the end of its room only', (t) => {
  t.is(parseBzImage(fakeBzImage({ 0x201: [1, 0xff] })).header.length, 0x290 - 0x1f1);
});

test('rejects a file that is not a bzImage', (t) => {
  const message = /^not a bzImage: it has no Linux setup header\. /;
  t.throws(() => parseBzImage(new Uint8Array()), { message });
  t.throws(() => parseBzImage(fakeBzImage().subarray(0, 0x263)), { message });
  t.throws(() => parseBzImage(fakeBzImage({ 0x202: [4, 0x464c_457f] })), { message });
});

test('rejects a kernel with an old boot protocol', (t) => {
  const message = 'boot protocol 2.11 has no 64-bit entry point. Name a kernel from Linux 3.8 on';
  t.throws(() => parseBzImage(fakeBzImage({ 0x206: [2, 0x20b] })), { message });
  t.notThrows(() => parseBzImage(fakeBzImage({ 0x206: [2, 0x20c] })));
});

test('rejects a zImage', (t) => {
  t.throws(() => parseBzImage(fakeBzImage({ 0x211: [1, 0x80] })), { message: /^a zImage/ });
});

test('rejects a kernel without a 64-bit entry point', (t) => {
  const message = /^no 64-bit entry point \(bit 0 of xloadflags\)/;
  t.throws(() => parseBzImage(fakeBzImage({ 0x236: [2, 0x7e] })), { message });
});

test('rejects an incomplete file', (t) => {
  const file = fakeBzImage();
  const lengths = `its header requires ${file.length} bytes, and it has ${file.length - 1}`;
  const message = `an incomplete file: ${lengths}. Copy it again`;
  t.throws(() => parseBzImage(file.subarray(0, -1)), { message });
});
