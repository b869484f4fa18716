/**
 * Hosts that a caller passes: recorded, made by hand, or not hosts at all.
 */
import { types } from 'node:util';
import { readOptions, readable } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import type { Host } from './model.ts';

/**
 * Evaluates a host.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for what is not a host, or has entries that are not what their types
 * say
 * @internal
 */
export function evaluateHost<T>(host: Host, evaluate: (host: Host) => T): T {
  const { functions, groups, iommus } = readOptions(host, ['functions', 'groups', 'iommus'], 'a host');
  if (![functions, groups, iommus].every((map) => types.isMap(map))) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      'a host is what readHost returns: its functions, groups and iommus are Maps',
    );
  }
  return readable('the host', () => evaluate(host));
}
