/**
 * Takes apart what was JSON and may be anything: gives what is known of it, in the types of this package, or says what is
 * wrong where.
 */
import { PeerDmaError } from '../errors.ts';

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export type Check<T> = (value: unknown, where: string) => T;

function wrong(where: string, what: string, value: unknown): PeerDmaError {
  const text = JSON.stringify(value) ?? 'missing';
  return new PeerDmaError(
    'ERR_INVALID_ARGUMENT',
    `${where} is ${what}, not ${text.length > 60 ? `${text.slice(0, 60)}…` : text}`,
  );
}

/** @internal */
export const text: Check<string> = (value, where) => {
  if (typeof value === 'string') return value;
  throw wrong(where, 'a text', value);
};

/** @internal */
export const flag: Check<boolean> = (value, where) => {
  if (typeof value === 'boolean') return value;
  throw wrong(where, 'true or false', value);
};

/** @internal */
export const number: Check<number> = (value, where) => {
  if (typeof value === 'number') return value;
  throw wrong(where, 'a number', value);
};

/** A number of things, or an index. @internal */
export const count: Check<number> = (value, where) => {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw wrong(where, 'a whole number', value);
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
    throw wrong(where, `one of ${values.join(', ')}`, value);
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
    for (const [name, check] of Object.entries<Check<unknown>>(needed)) {
      found[name] = check(given[name], `${where}.${name}`);
    }
    for (const [name, check] of Object.entries<Check<unknown>>(optional)) {
      if (given[name] !== undefined) found[name] = check(given[name], `${where}.${name}`);
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
