/**
 * Validates parsed JSON from untrusted files. A check returns a typed value that has the known fields alone, or throws
 * an error that names the wrong field.
 */
import { PeerDmaError } from '../errors.ts';

/**
 * Validates a value and returns it with its type.
 *
 * @param where path of the value, such as `delta.flat[0]`; empty for the root
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export type Check<T> = (value: unknown, where: string) => T;

/** Limit of the characters of a string that an error message quotes. */
const MAX_QUOTED_CHARACTERS = 60;

function wrong(where: string, what: string, value: unknown): PeerDmaError {
  const place = where === '' ? '' : `${where}: `;
  const found = value === undefined ? 'but it is missing' : `not ${foundText(value)}`;
  return new PeerDmaError('ERR_INVALID_ARGUMENT', `${place}expected ${what}, ${found}`);
}

/** Describes a JSON value. Does not print lists and objects: `JSON.stringify` fails if they are nested too deep. */
function foundText(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value !== 'string') return String(value);
  return JSON.stringify(value.length > MAX_QUOTED_CHARACTERS ? `${value.slice(0, MAX_QUOTED_CHARACTERS)}…` : value);
}

/** Accepts a string. @internal */
export const text: Check<string> = (value, where) => {
  if (typeof value === 'string') return value;
  throw wrong(where, 'a string', value);
};

/** Accepts a boolean. @internal */
export const flag: Check<boolean> = (value, where) => {
  if (typeof value === 'boolean') return value;
  throw wrong(where, 'true or false', value);
};

/** Accepts a finite number: `JSON.parse` reads `1e999` as `Infinity`. @internal */
export const number: Check<number> = (value, where) => {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw wrong(where, 'a finite number', value);
};

/** Accepts an integer from `least` to `most`. @internal */
export function wholeNumber(least: number, most: number): Check<number> {
  return (value, where) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value;
    throw wrong(where, `a whole number from ${least} to ${most}`, value);
  };
}

/** Accepts a count or an index. @internal */
export const count: Check<number> = wholeNumber(0, Number.MAX_SAFE_INTEGER);

/** Accepts the format of `Date.prototype.toISOString` for the years from 0 to 9999. @internal */
export const time: Check<string> = (value, where) => {
  const isTime = typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value);
  if (isTime && Number.isFinite(Date.parse(value))) return value;
  throw wrong(where, 'a time such as "2026-11-30T12:00:00.000Z"', value);
};

/** Accepts a hexadecimal address of at most 2^64, the largest `end` of a range. @internal */
export const address: Check<string> = (value, where) => {
  if (typeof value === 'string' && /^0x(?:[0-9a-f]{1,16}|10{16})$/.test(value)) {
    return `0x${BigInt(value).toString(16)}`; // removes leading zeros, so that equal addresses are equal strings
  }
  throw wrong(where, 'an address such as "0x1000"', value);
};

/** Accepts one of the given values. @internal */
export function oneOf<const T extends string | number>(...values: readonly T[]): Check<T> {
  return (value, where) => {
    const found = values.find((one) => one === value);
    if (found !== undefined) return found;
    throw wrong(where, values.map((one) => JSON.stringify(one)).join(' or '), value);
  };
}

/** Accepts a list whose elements all pass a check. @internal */
export function list<T>(check: Check<T>): Check<T[]> {
  return (value, where) => {
    if (!Array.isArray(value)) throw wrong(where, 'a list', value);
    return value.map((one: unknown, index) => check(one, `${where}[${index}]`));
  };
}

/** A check for each field of an object. @internal */
export type Checks<T> = { readonly [K in keyof T]-?: Check<NonNullable<T[K]>> };

type RequiredFields<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] };
type OptionalFields<T> = { [K in keyof T as undefined extends T[K] ? K : never]-?: NonNullable<T[K]> };

/** Accepts an object with these fields, and drops its other fields. @internal */
export function fields<T extends object>(
  required: Checks<RequiredFields<T>>,
  optional: Checks<OptionalFields<T>>,
): Check<T> {
  return (value, where) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(where, 'an object', value);
    const found: Record<string, unknown> = {};
    const given: Readonly<Record<string, unknown>> = { ...value };
    const pathOf = (name: string): string => (where === '' ? name : `${where}.${name}`);
    for (const [name, check] of Object.entries<Check<unknown>>(required)) {
      found[name] = check(given[name], pathOf(name));
    }
    for (const [name, check] of Object.entries<Check<unknown>>(optional)) {
      if (given[name] !== undefined) found[name] = check(given[name], pathOf(name));
    }
    return found as T; // the two lists have a check for each field of T
  };
}

/** Accepts an object whose `end` is higher than its `start`. @internal */
export function ranged<T extends { readonly start: string; readonly end: string }>(check: Check<T>): Check<T> {
  return (value, where) => {
    const found = check(value, where);
    if (BigInt(found.start) < BigInt(found.end)) return found;
    throw wrong(where, 'a range whose end comes after its start', `${found.start}..${found.end}`);
  };
}
