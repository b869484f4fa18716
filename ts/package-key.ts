/**
 * Constructors that only this package calls. A `private` of TypeScript does not keep JavaScript out.
 */
import { PeerDmaError } from './errors.ts';

/** The first argument of a private constructor of an exported class. Callers do not have it. @internal */
export const PACKAGE_KEY: unique symbol = Symbol('peerdma');

/**
 * Checks the first argument of a private constructor.
 *
 * @param factory the call that callers make instead, such as `GuestMemory.create()`
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for any value but {@link PACKAGE_KEY}
 * @internal
 */
export function requirePackageKey(key: unknown, factory: `${string}.${string}()`): void {
  if (key === PACKAGE_KEY) return;
  const [name] = factory.split('.');
  const reason = 'its constructor is not public';
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${name}: construction failed: ${reason}. Call ${factory}.`);
}
