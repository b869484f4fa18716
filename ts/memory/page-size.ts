/**
 * The page size of the host. The native core reads and checks it.
 */
import { hostPageSize as readPageSize } from '#native';
import { native } from '../native-call.ts';

let known: bigint | undefined;

/**
 * Bytes in a page of this host: the unit of guest memory.
 *
 * @throws {PeerDmaError} `ERR_PAGE_SIZE` if the system does not report a power of two of at least 4096
 * @internal
 */
export function hostPageSize(): bigint {
  return (known ??= native(() => readPageSize()));
}
