/**
 * The page size of the host, from the native core, which checks what the system says.
 */
import { hostPageSize as ask } from '#native';
import { native } from '../native-call.ts';

let known: bigint | undefined;

/**
 * Bytes in a page of this host: the unit of guest memory.
 *
 * @throws {PeerDmaError} `ERR_PAGE_SIZE` where the system gives no power of two of at least 4096
 * @internal
 */
export function hostPageSize(): bigint {
  return (known ??= native(() => ask()));
}
