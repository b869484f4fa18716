/**
 * Calls of the native core's address spaces that throw. The core returns failures as values; here the first one is
 * thrown as an error of the core.
 */
import type {
  NativeFailure,
  NativeIoas,
  NativeMapFailure,
  NativeMemoryFile,
  NativeReservation,
  NativeVfioContainer,
} from '#native';

export type NativeSpace = NativeIoas | NativeVfioContainer;

/** A request: memory of this process, by its offset in the reservation. */
export function byPlace(iova: bigint, length: bigint, offset: bigint = 0n, writable: boolean = true): bigint[] {
  return [iova, length, writable ? 1n : 0n, offset];
}

/** A request: part of a file. `which` is its index among the files of the call. */
export function byFile(
  iova: bigint,
  length: bigint,
  { which = 0, offset = 0n, writable = true }: { which?: number; offset?: bigint; writable?: boolean } = {},
): bigint[] {
  return [iova, length, (BigInt(which) << 32n) | (writable ? 3n : 2n), offset];
}

export function words(...requests: readonly (readonly bigint[])[]): BigUint64Array {
  return BigUint64Array.from(requests.flat());
}

export function mapInto(
  space: NativeSpace,
  reservation: NativeReservation | undefined,
  files: NativeMemoryFile[],
  requests: BigUint64Array,
): void {
  throwFailed(space.map(reservation, files, requests));
}

/** Calls the native core before it returns. */
export async function mapIntoAsync(
  space: NativeSpace,
  reservation: NativeReservation | undefined,
  files: NativeMemoryFile[],
  requests: BigUint64Array,
): Promise<void> {
  throwFailed(await space.mapAsync(reservation, files, requests));
}

export function unmapFrom(space: NativeSpace, iova: bigint, length: bigint): void {
  throwFirst(space.unmap(BigUint64Array.of(iova, length), false));
}

/** The longest range that any kernel unmaps at once. The last pages of the address space cannot be mapped. */
const ALL = (1n << 64n) - 0x1_0000n;

export function unmapAll(space: NativeSpace): void {
  unmapFrom(space, 0n, ALL);
}

/** Calls the native core before it returns. */
export async function unmapFromAsync(space: NativeSpace, iova: bigint, length: bigint): Promise<void> {
  throwFirst(await space.unmapAsync(BigUint64Array.of(iova, length), false));
}

function throwFailed(failure: NativeMapFailure | null): void {
  if (failure !== null) throw failure.failed.error;
}

function throwFirst([first]: readonly NativeFailure[]): void {
  if (first !== undefined) throw first.error;
}
