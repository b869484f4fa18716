/**
 * Which BARs of a device another one can be shown.
 */
import type { BarResource } from '../resources.ts';
import type { PciFunction } from '../model.ts';
import type { TargetBar } from './model.ts';

/** What IOMMUs map, and what a dma-buf is made of: pages of x86. @internal */
export const PAGE = 4096n;

/** BARs of targets, each judged once for all cells of a matrix. @internal */
export class TargetBars {
  readonly #known = new Map<PciFunction, Map<number | undefined, readonly TargetBar[]>>();

  /** @param addressBits of the initiator's IOMMU, where they are known */
  of(target: PciFunction, addressBits: number | undefined): readonly TargetBar[] {
    const byBits = this.#known.get(target) ?? new Map<number | undefined, readonly TargetBar[]>();
    const bars = byBits.get(addressBits) ?? targetBars(target, addressBits);
    this.#known.set(target, byBits.set(addressBits, bars));
    return bars;
  }
}

/**
 * BARs 0 to 5. The ROM is none: a guest switches it on by itself, and nobody does DMA to it.
 *
 * @param addressBits of the initiator's IOMMU, where they are known
 * @internal
 */
export function targetBars({ bars }: PciFunction, addressBits: number | undefined): TargetBar[] {
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
  if (kind === 'io') return 'I/O ports, which have no place in an IOMMU';
  if (address === undefined) return 'has no address on the host';
  if (length < PAGE)
    return `${length} bytes, less than a page: it can neither be mapped alone nor exported as a dma-buf`;
  if (length % PAGE !== 0n || address % PAGE !== 0n)
    return 'not of whole pages, so it can neither be mapped nor exported';
  if (addressBits !== undefined && length > 1n << BigInt(addressBits)) {
    return `larger than the ${addressBits} bits of addresses of the initiator's IOMMU`;
  }
  return undefined;
}
