/**
 * A custom DMA target that rejects mappings of one address.
 */
import type { AddressRange, DmaMapRequest, DmaTarget } from '../../index.ts';

export class RejectingTarget implements DmaTarget {
  readonly name = 'rejecting-target';
  readonly #rejected: bigint;

  constructor(rejected: bigint) {
    this.#rejected = rejected;
  }

  mapDma({ range }: DmaMapRequest): void {
    if (range.contains(this.#rejected)) throw new Error('this target rejects the address');
  }

  unmapDma(_range: AddressRange): void {}
}
