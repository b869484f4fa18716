/**
 * A DMA target of the demo's own: it follows the memory map like any other, and refuses one address.
 */
import type { AddressRange, DmaMapRequest, DmaTarget } from '../../index.ts';

export class RejectingTarget implements DmaTarget {
  readonly name = 'rejecting-target';
  readonly #refused: bigint;

  constructor(refused: bigint) {
    this.#refused = refused;
  }

  mapDma({ range }: DmaMapRequest): void {
    if (range.contains(this.#refused)) throw new Error('not that address, please');
  }

  unmapDma(_range: AddressRange): void {}
}
