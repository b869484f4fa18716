/**
 * Validates a `HostMachine` argument: callers can pass anything.
 */
import { types } from 'node:util';
import { readOptions, readable } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import type { HostMachine } from './model.ts';

/**
 * Calls a function with a host that a caller passed.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the argument is not a host, or an entry does not match its type
 * @internal
 */
export function evaluateHost<T>(host: HostMachine, evaluate: (host: HostMachine) => T): T {
  const { functions, groups, iommus } = readOptions(host, ['functions', 'groups', 'iommus'], 'a host');
  if (![functions, groups, iommus].every((map) => types.isMap(map))) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      'a host is what readHost returns: its functions, groups and iommus are Maps',
    );
  }
  return readable('the host', () => evaluate(host));
}
