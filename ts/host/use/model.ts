/**
 * A use of a device by the host.
 */

/** A use that ends if the device gets another driver. @internal */
export interface Use {
  readonly kind: 'disk' | 'network' | 'display' | 'console' | 'keyboard' | 'virtual-functions' | 'program';
  /** Predicate of a sentence about the device: `holds / (nvme0n1p2)`. */
  readonly text: string;
}
