/**
 * An encoder of AML, the language of the tree of devices (ACPI 6.5, 20.2). Each function returns a term.
 */
import { type Bytes, ascii, u16, u32, u64, u8 } from './bytes.ts';

/** Opcodes. */
const ZERO = 0x00;
const ONE = 0x01;
const NAME = 0x08;
const BYTE = 0x0a;
const WORD = 0x0b;
const DOUBLE_WORD = 0x0c;
const STRING = 0x0d;
const QUAD_WORD = 0x0e;
const SCOPE = 0x10;
const BUFFER = 0x11;
const PACKAGE = 0x12;
const DEVICE = [0x5b, 0x82];

const SEGMENT = /^[A-Z_][A-Z0-9_]{0,3}$/;

/** A named object, such as `_CRS`. */
export function name(segment: string, value: Bytes): Bytes {
  return [NAME, ...nameSegment(segment), ...value];
}

/** Terms within an object that exists, such as `_SB`. */
export function scope(segment: string, ...terms: readonly Bytes[]): Bytes {
  return [SCOPE, ...withLength([...nameSegment(segment), ...terms.flat()])];
}

export function device(segment: string, ...terms: readonly Bytes[]): Bytes {
  return [...DEVICE, ...withLength([...nameSegment(segment), ...terms.flat()])];
}

/** A list of up to 255 values. */
export function packageOf(...elements: readonly Bytes[]): Bytes {
  return [PACKAGE, ...withLength([...u8(elements.length), ...elements.flat()])];
}

export function buffer(bytes: Bytes): Bytes {
  return [BUFFER, ...withLength([...integer(bytes.length), ...bytes])];
}

export function text(value: string): Bytes {
  return [STRING, ...ascii(value), 0];
}

/** An unsigned integer of up to 64 bits, in its shortest encoding. */
export function integer(value: number | bigint): Bytes {
  if (value === 0 || value === 0n) return [ZERO];
  if (value === 1 || value === 1n) return [ONE];
  if (value < 2 ** 8) return [BYTE, ...u8(value)];
  if (value < 2 ** 16) return [WORD, ...u16(value)];
  return value < 2 ** 32 ? [DOUBLE_WORD, ...u32(value)] : [QUAD_WORD, ...u64(value)];
}

function nameSegment(segment: string): Bytes {
  if (SEGMENT.test(segment)) return ascii(segment.padEnd(4, '_'));
  throw new Error(`a name in AML has up to four characters of A-Z, 0-9 and _, not ${segment}`);
}

/** Prepends the length, which includes its own bytes (PkgLength; ACPI 6.5, 20.2.4). */
function withLength(content: Bytes): Bytes {
  if (content.length + 1 < 1 << 6) return [content.length + 1, ...content];
  const extra = [1, 2].find((count) => content.length + 1 + count < 1 << (4 + 8 * count)) ?? 3;
  const length = content.length + 1 + extra;
  const rest = Array.from({ length: extra }, (_, at) => (length >> (4 + 8 * at)) & 0xff);
  return [(extra << 6) | (length & 0xf), ...rest, ...content];
}
