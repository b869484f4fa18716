/**
 * Takes apart what was JSON and may be anything: gives what is known of it, in the types of this package, or says what is
 * wrong where.
 */
import { PeerDmaError } from '../errors.ts';

/**
 * @param where names and indexes down to the value, such as `delta.flat[0]`; empty for the whole
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`
 * @internal
 */
export type Check<T> = (value: unknown, where: string) => T;

/** The longest text in a message. */
const MOST_CHARACTERS = 60;

function wrong(where: string, what: string, value: unknown): PeerDmaError {
  const place = where === '' ? '' : `${where}: `;
  const found = value === undefined ? 'but it is missing' : `not ${foundText(value)}`;
  return new PeerDmaError('ERR_INVALID_ARGUMENT', `${place}expected ${what}, ${found}`);
}

/** A value of JSON. Not all of it: `JSON.stringify` fails for lists that are nested too deep. */
function foundText(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object' && value !== null) return 'an object';
  if (typeof value !== 'string') return String(value);
  return JSON.stringify(value.length > MOST_CHARACTERS ? `${value.slice(0, MOST_CHARACTERS)}…` : value);
}

/** @internal */
export const text: Check<string> = (value, where) => {
  if (typeof value === 'string') return value;
  throw wrong(where, 'a string', value);
};

/** @internal */
export const flag: Check<boolean> = (value, where) => {
  if (typeof value === 'boolean') return value;
  throw wrong(where, 'true or false', value);
};

/** A finite one: `1e999` of JSON is `Infinity`. @internal */
export const number: Check<number> = (value, where) => {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw wrong(where, 'a finite number', value);
};

/** @internal */
export function wholeNumber(least: number, most: number): Check<number> {
  return (value, where) => {
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most) return value;
    throw wrong(where, `a whole number from ${least} to ${most}`, value);
  };
}

/** A number of things, or an index. @internal */
export const count: Check<number> = wholeNumber(0, Number.MAX_SAFE_INTEGER);

/** What `Date.prototype.toISOString` returns for the years from 0 to 9999. @internal */
export const time: Check<string> = (value, where) => {
  const isTime = typeof value === 'string' && /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/.test(value);
  if (isTime && Number.isFinite(Date.parse(value))) return value;
  throw wrong(where, 'a time such as "2026-11-30T12:00:00.000Z"', value);
};

/** At most 2^64, as `end` of a range may be. @internal */
export const address: Check<string> = (value, where) => {
  if (typeof value === 'string' && /^0x(?:[0-9a-f]{1,16}|10{16})$/.test(value)) {
    return `0x${BigInt(value).toString(16)}`; // without leading zeros, so that equal ones are equal
  }
  throw wrong(where, 'an address such as "0x1000"', value);
};

/** @internal */
export function oneOf<const T extends string | number>(...values: readonly T[]): Check<T> {
  return (value, where) => {
    const found = values.find((one) => one === value);
    if (found !== undefined) return found;
    throw wrong(where, values.map((one) => JSON.stringify(one)).join(' or '), value);
  };
}

/** @internal */
export function list<T>(check: Check<T>): Check<T[]> {
  return (value, where) => {
    if (!Array.isArray(value)) throw wrong(where, 'a list', value);
    return value.map((one: unknown, index) => check(one, `${where}[${index}]`));
  };
}

/** Fields that may be missing, as a second argument of {@link fields}. @internal */
export type Checks<T> = { readonly [K in keyof T]-?: Check<NonNullable<T[K]>> };

type Needed<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] };
type Optional<T> = { [K in keyof T as undefined extends T[K] ? K : never]-?: NonNullable<T[K]> };

/** An object with these fields; others are dropped. @internal */
export function fields<T extends object>(needed: Checks<Needed<T>>, optional: Checks<Optional<T>>): Check<T> {
  return (value, where) => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(where, 'an object', value);
    const found: Record<string, unknown> = {};
    const given: Readonly<Record<string, unknown>> = { ...value };
    const placeOf = (name: string): string => (where === '' ? name : `${where}.${name}`);
    for (const [name, check] of Object.entries<Check<unknown>>(needed)) {
      found[name] = check(given[name], placeOf(name));
    }
    for (const [name, check] of Object.entries<Check<unknown>>(optional)) {
      if (given[name] !== undefined) found[name] = check(given[name], placeOf(name));
    }
    return found as T; // by the two lists, which have a check for each field of T
  };
}

/** Something whose end comes after its start. @internal */
export function ranged<T extends { readonly start: string; readonly end: string }>(check: Check<T>): Check<T> {
  return (value, where) => {
    const found = check(value, where);
    if (BigInt(found.start) < BigInt(found.end)) return found;
    throw wrong(where, 'a range whose end comes after its start', `${found.start}..${found.end}`);
  };
}
