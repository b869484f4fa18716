/**
 * JSON in pieces: that of all pairs of a host with hundreds of devices is longer than a string can be.
 */
import { hex } from '../address-range.ts';
import { printableJson } from '../printable.ts';

/** Larger pieces are not written faster. */
const PIECE = 1 << 20;

/**
 * Writes plain data as `JSON.stringify` does with an indentation of two, in pieces: bigints as hexadecimal strings,
 * characters that a terminal would obey escaped.
 *
 * @param write is called with each piece
 * @param length characters after which a piece ends, at the next name or value
 */
export function writeJson(value: unknown, write: (piece: string) => void, length: number = PIECE): void {
  let piece = '';
  putValue(value, '\n', (text) => {
    piece += text;
    if (piece.length < length) return;
    write(printableJson(piece));
    piece = '';
  });
  if (piece !== '') write(printableJson(piece));
}

type Put = (text: string) => void;

/** @param lineEnd a line end, and the indentation of the line that the value begins in */
function putValue(value: unknown, lineEnd: string, put: Put): void {
  const plain = hasToJson(value) ? value.toJSON() : value;
  if (typeof plain === 'bigint') put(JSON.stringify(hex(plain)));
  else if (typeof plain !== 'object' || plain === null) put(JSON.stringify(plain) ?? 'null');
  else if (Array.isArray(plain)) putArray(plain, lineEnd, put);
  else putObject(plain, lineEnd, put);
}

function putArray(values: readonly unknown[], lineEnd: string, put: Put): void {
  if (values.length === 0) return put('[]');
  const inner = `${lineEnd}  `;
  for (const [index, value] of values.entries()) {
    put(`${index === 0 ? '[' : ','}${inner}`);
    putValue(value, inner, put);
  }
  put(`${lineEnd}]`);
}

function putObject(object: object, lineEnd: string, put: Put): void {
  const members = Object.entries(object).filter(([, value]) => value !== undefined);
  if (members.length === 0) return put('{}');
  const inner = `${lineEnd}  `;
  for (const [index, [name, value]] of members.entries()) {
    put(`${index === 0 ? '{' : ','}${inner}${JSON.stringify(name)}: `);
    putValue(value, inner, put);
  }
  put(`${lineEnd}}`);
}

function hasToJson(value: unknown): value is { toJSON(): unknown } {
  return typeof value === 'object' && value !== null && 'toJSON' in value && typeof value.toJSON === 'function';
}
