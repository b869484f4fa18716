/**
 * JSON in pieces: that of all pairs of a host with hundreds of devices is longer than a string can be.
 */
import { hex } from '../address-range.ts';
import { printableJson } from '../printable.ts';

/** Larger pieces are not written faster. */
const PIECE = 1 << 20;

/** An object or list of which a part has been written. */
interface Container {
  /** What remains of it, each with the text before it. */
  readonly members: Iterator<readonly [label: string, value: unknown]>;
  readonly end: '}' | ']';
  isEmpty: boolean;
}

/**
 * Makes the text that `JSON.stringify` gives with an indentation of two, in pieces: bigints are hexadecimal strings,
 * characters that a terminal would obey are escaped. Iterables are written as arrays, and read as the pieces are taken.
 *
 * @param length characters after which a piece ends, at the next name or value
 */
export function* jsonPieces(value: unknown, length: number = PIECE): Generator<string, void, void> {
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

/** The text of a value that has no members; the first character of one that has, which is added to `open`. */
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

/** With the indentation of the line that follows. */
function lineEnd(depth: number): string {
  return `\n${'  '.repeat(depth)}`;
}

function hasToJson(value: unknown): value is { toJSON(): unknown } {
  return typeof value === 'object' && value !== null && 'toJSON' in value && typeof value.toJSON === 'function';
}
