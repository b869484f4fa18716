/**
 * The BARs of a target, and whether an IOMMU can map them.
 */
import type { BarResource } from '../resources.ts';
import type { PciFunction } from '../model.ts';
import type { PeerTargetBar } from './model.ts';

/** Page size of IOMMUs and dma-bufs on x86. @internal */
export const PAGE = 4096n;

/** Caches the BARs of targets for all cells of a matrix. @internal */
export class TargetBars {
  readonly #known = new Map<PciFunction, Map<number | undefined, readonly PeerTargetBar[]>>();

  /** @param addressBits address width of the initiator's IOMMU in bits; `undefined` if it is unknown */
  of(target: PciFunction, addressBits: number | undefined): readonly PeerTargetBar[] {
    const byBits = this.#known.get(target) ?? new Map<number | undefined, readonly PeerTargetBar[]>();
    const bars = byBits.get(addressBits) ?? targetBars(target, addressBits);
    this.#known.set(target, byBits.set(addressBits, bars));
    return bars;
  }
}

/**
 * Returns BARs 0 to 5. The ROM is not a target: devices do not do DMA to it.
 *
 * @param addressBits address width of the initiator's IOMMU in bits; `undefined` if it is unknown
 * @internal
 */
export function targetBars({ bars }: PciFunction, addressBits: number | undefined): PeerTargetBar[] {
  return bars
    .filter(({ kind }) => kind !== 'rom')
    .map((bar) => ({
      index: bar.index,
      length: bar.length,
      address: bar.address,
      problem: problemOf(bar, addressBits),
    }));
}

function problemOf({ kind, address, length }: BarResource, addressBits: number | undefined): string | undefined {
  if (kind === 'io') return 'I/O ports, which an IOMMU cannot map';
  if (address === undefined) return 'has no address on the host';
  if (length < PAGE)
    return `${length} bytes, less than a page, so it can neither be mapped alone nor exported as a dma-buf`;
  if (length % PAGE !== 0n || address % PAGE !== 0n)
    return 'does not consist of whole pages, so it can neither be mapped nor exported';
  if (addressBits !== undefined && length > 1n << BigInt(addressBits)) {
    return `larger than the ${addressBits}-bit address space of the initiator's IOMMU`;
  }
  return undefined;
}
