/**
 * The text of objects for `console.log` and `util.inspect`.
 */
import { printable } from './printable.ts';

/**
 * The name of the method that `util.inspect` of Node, Bun and Deno calls.
 *
 * The symbol is registered, so that it needs no import of `node:util`.
 *
 * @internal
 */
export const INSPECT: unique symbol = Symbol.for('nodejs.util.inspect.custom') as never;

/** The options that `util.inspect` passes to that method, as far as they are used here. @internal */
export interface InspectOptions {
  /** How many levels of nested objects are shown; `null` for all. */
  readonly depth?: number | null | undefined;
}

/** @internal */
export type Inspect = (value: unknown, options?: object) => string;

/**
 * The text of an object: `Region "bar" 0x1000..0x2000 (4 KiB) { active, writable }`.
 *
 * @param depth the levels of nested objects that are still shown; below them, the text has no properties
 * @param name of the class
 * @param describe returns what identifies the object, and its properties as `name: value` or words. If it throws, as
 * for a proxy of an object with private fields, the text is the name
 * @internal
 */
export function objectText(
  depth: number,
  name: string,
  describe: () => readonly [identity: string, ...properties: readonly string[]],
): string {
  try {
    const [identity, ...properties] = describe();
    const title = printable(identity === '' ? name : `${name} ${identity}`);
    return depth < 0 ? `[${title}]` : `${title} { ${properties.map(printable).join(', ')} }`;
  } catch {
    return `[${name}]`;
  }
}

/** The levels that a snapshot shows in addition: those of lists in its entries. */
const SNAPSHOT_LEVELS = 2;

/**
 * Adds a text for `console.log` to a snapshot. It is not a property of JSON, of copies, or of comparisons.
 *
 * Ranges are shown as `0x1000..0x2000`, and lists in entries are shown, too.
 *
 * @param name of the type
 * @internal
 */
export function withSnapshotText<T extends object>(name: string, snapshot: T): T {
  const inspectSnapshot = (depth: number, options: InspectOptions, inspect: Inspect): string => {
    if (depth < 0) return `[${name}]`;
    const levels = options.depth === null ? null : depth + SNAPSHOT_LEVELS;
    return `${name} ${inspect(withShortRanges(snapshot), { ...options, depth: levels })}`;
  };
  return Object.defineProperty(snapshot, INSPECT, { value: inspectSnapshot, enumerable: false });
}

/** A copy of plain data with `start` and `end` joined to one property `range`. */
function withShortRanges(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withShortRanges);
  if (typeof value !== 'object' || value === null) return value;
  const { start, end, ...rest } = value as Readonly<Record<string, unknown>>;
  const others = Object.entries(rest).map(([name, one]) => [name, withShortRanges(one)] as const);
  if (start === undefined || end === undefined) return Object.fromEntries(others);
  const range = `${String(start)}..${String(end)}`;
  return others.length === 0 ? range : { range, ...Object.fromEntries(others) };
}
