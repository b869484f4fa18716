/**
 * Values of other types than a parameter's, and calls with each of them in each place.
 */
import { AddressRange, MemoryFile } from '../../ts/index.ts';
import { PAGE } from '../support/pages.ts';

// oxlint-disable-next-line typescript/no-explicit-any -- arguments of every wrong type are the subject
export type Anything = any;

/** Calls by the property or parameter that takes the value. */
export type Calls = Readonly<Record<string, (value: Anything) => unknown>>;

export const RANGE: AddressRange = AddressRange.of(0n, PAGE);

/** The exception of an object that cannot be inspected. */
export const trap = (): never => {
  throw new Error('not to be looked at');
};

const TRAPS = { get: trap, has: trap, ownKeys: trap, getOwnPropertyDescriptor: trap } as const;

/** An object whose every property throws, on top of what it is. */
function trapped<T extends object>(target: T): T {
  return new Proxy(target, TRAPS);
}

function revokedProxy(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

/** In place of a property: its getter throws. See {@link options}. */
const THROWS = {};

const NUMBERS: readonly Anything[] = [0, -1, 1.5, NaN, Infinity, 2 ** 53, 1n, -1n, 1n << 63n, 1n << 64n];
const OBJECTS: readonly Anything[] = [
  {},
  [],
  [null],
  Object.assign([], { length: 2 }),
  () => undefined,
  new Uint8Array(3),
  new Map(),
];
/** Values that cannot be written into a message, and others that throw when they are inspected. */
const HOSTILE: readonly Anything[] = [
  Object.create(null),
  Symbol('s'),
  trapped({}),
  trapped([1, 2]),
  trapped(RANGE),
  trapped(new Uint8Array(3)),
  trapped(new Map()),
  trapped(() => undefined),
  Object.create(AddressRange.prototype),
  Object.create(MemoryFile.prototype),
  revokedProxy(),
  THROWS,
];

export const VALUES: readonly Anything[] = [undefined, null, ...NUMBERS, ...OBJECTS, '', 'x', true, RANGE, ...HOSTILE];

/** Calls with an object that has one property of another type, or one that throws. */
export function options(
  valid: Readonly<Record<string, unknown>>,
  call: (options: Anything) => unknown,
  names: readonly string[] = Object.keys(valid),
): Calls {
  const one = (name: string) => (value: unknown) =>
    call(
      value === THROWS
        ? Object.defineProperty({ ...valid }, name, { get: trap, enumerable: true })
        : { ...valid, [name]: value },
    );
  return { 'the object': call, ...Object.fromEntries(names.map((name) => [name, one(name)])) };
}
