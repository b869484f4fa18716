/**
 * Writes JSON in pieces. The matrix of a host with hundreds of devices exceeds the length limit of a string.
 */
import { hex } from '../address-range.ts';
import { printableJson } from '../printable.ts';

/** Characters of a piece. Larger pieces are not written faster. */
const PIECE_LENGTH = 1 << 20;

/** An object or list that is partly written. */
interface Container {
  /** The members that are not written yet, each with the text that precedes it. */
  readonly members: Iterator<readonly [label: string, value: unknown]>;
  readonly end: '}' | ']';
  isEmpty: boolean;
}

/**
 * Yields the text of `JSON.stringify` with an indentation of two, in pieces.
 *
 * Bigints become hexadecimal strings, terminal control characters are escaped. Iterables become arrays, and are
 * iterated as the pieces are consumed.
 *
 * @param length minimum characters of a piece, which ends at the next name or value
 */
export function* jsonPieces(value: unknown, length: number = PIECE_LENGTH): Generator<string, void, void> {
  const open: Container[] = [];
  let piece = begin(value, open);
  for (let inner = open.at(-1); inner !== undefined; inner = open.at(-1)) {
    const next = inner.members.next();
    if (next.done === true) {
      open.pop();
      piece += inner.isEmpty ? inner.end : `${lineEnd(open.length)}${inner.end}`;
    } else {
      const [label, member] = next.value;
      piece += `${inner.isEmpty ? '' : ','}${lineEnd(open.length)}${label}`;
      inner.isEmpty = false;
      piece += begin(member, open);
    }
    if (piece.length < length) continue;
    yield printableJson(piece);
    piece = '';
  }
  if (piece !== '') yield printableJson(piece);
}

/** Returns the text of a scalar. For an object or list, adds it to `open` and returns its first character. */
function begin(value: unknown, open: Container[]): string {
  const plain = hasToJson(value) ? value.toJSON() : value;
  if (typeof plain === 'bigint') return JSON.stringify(hex(plain));
  if (typeof plain !== 'object' || plain === null) return JSON.stringify(plain) ?? 'null';
  const isList = Symbol.iterator in plain;
  const members = isList ? elements(plain as Iterable<unknown>) : properties(plain);
  open.push({ members, end: isList ? ']' : '}', isEmpty: true });
  return isList ? '[' : '{';
}

function* elements(values: Iterable<unknown>): Generator<readonly [string, unknown]> {
  for (const value of values) yield ['', value];
}

function* properties(object: object): Generator<readonly [string, unknown]> {
  for (const [name, value] of Object.entries(object)) {
    if (value !== undefined) yield [`${JSON.stringify(name)}: `, value];
  }
}

/** Returns a line end and the indentation of the next line. */
function lineEnd(depth: number): string {
  return `\n${'  '.repeat(depth)}`;
}

function hasToJson(value: unknown): value is { toJSON(): unknown } {
  return typeof value === 'object' && value !== null && 'toJSON' in value && typeof value.toJSON === 'function';
}
