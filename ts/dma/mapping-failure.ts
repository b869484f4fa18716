/**
 * A sub-mapping that a target failed to map or unmap, or that is revoked, with the error.
 */
import type { AddressRange } from '../address-range.ts';
import type { PeerDmaError } from '../errors.ts';
import type { SubMapping } from './sub-mapping.ts';

/** @internal */
export interface MappingFailure {
  /** Of the sub-mapping. */
  readonly range: AddressRange;
  readonly sub: SubMapping;
  readonly error: PeerDmaError;
}

/** @internal */
export function failureOf(sub: SubMapping, error: PeerDmaError): MappingFailure {
  return { range: sub.range, sub, error };
}
