/** RAM that a region of higher priority hides: it has no address, so no chunk can have its bytes. */
import type { GuestAddressSpace } from '../guest/guest-address-space.ts';
import { PeerDmaError } from '../errors.ts';

/** @throws {PeerDmaError} `ERR_UNSUPPORTED` if a part of RAM is hidden @internal */
export function requireVisibleRam({ map }: GuestAddressSpace): void {
  for (const { id, name, kind, at, mappings } of map.regions()) {
    if (kind !== 'ram' || at === undefined) continue;
    const visible = map.flat.overlapping(at).filter(({ regionId }) => regionId === id);
    const hidden = bytesOf(mappings.values()) - bytesOf(visible);
    if (hidden === 0n) continue;
    const reason = `another region hides ${hidden} bytes of the RAM "${name}" at ${at}`;
    const text = `guest memory cannot be copied: ${reason}. Unmap that region, or cut the RAM there.`;
    throw new PeerDmaError('ERR_UNSUPPORTED', text, { range: at });
  }
}

function bytesOf(values: readonly { readonly range: { readonly length: bigint } }[]): bigint {
  return values.reduce((sum, { range }) => sum + range.length, 0n);
}
