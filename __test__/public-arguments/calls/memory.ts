/**
 * Calls of address ranges, memory files and errors.
 */
import type { ExecutionContext } from 'ava';
import { AddressRange, MemoryFile, PeerDmaError } from '../../../ts/index.ts';
import { PAGE } from '../../support/pages.ts';
import { type Calls, RANGE, options } from '../values.ts';

export function memoryCalls(t: ExecutionContext): Record<string, Calls> {
  const file = MemoryFile.create(PAGE);
  t.teardown(() => file.close());
  return {
    'AddressRange.of': {
      start: (value) => AddressRange.of(value, 1n),
      length: (value) => AddressRange.of(0n, value),
    },
    'AddressRange#contains': { other: (value) => RANGE.contains(value) },
    'AddressRange#overlaps': { other: (value) => RANGE.overlaps(value) },
    'AddressRange#equals': { other: (value) => RANGE.equals(value) },
    'new PeerDmaError': {
      code: (value) => new PeerDmaError(value, 'x'),
      message: (value) => new PeerDmaError('ERR_SYSTEM', value),
      ...options(
        { errno: 'EIO', syscall: 'ioctl', range: RANGE, target: 'x', bdf: 'x', cause: undefined },
        (value) => new PeerDmaError('ERR_SYSTEM', 'x', value),
      ),
    },
    'MemoryFile.create': {
      length: (value) => MemoryFile.create(value).close(),
      ...options({ name: 'x', hugePages: undefined }, (value) => MemoryFile.create(PAGE, value).close()),
    },
    'MemoryFile.fromFd': { fd: (value) => MemoryFile.fromFd(value === 0 ? -1 : value).close() },
    'MemoryFile#read': { offset: (value) => file.read(value, 1), length: (value) => file.read(0n, value) },
    'MemoryFile#write': {
      offset: (value) => file.write(value, new Uint8Array(1)),
      bytes: (value) => file.write(0n, value),
    },
  };
}
