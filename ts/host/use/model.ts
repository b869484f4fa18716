/**
 * What the host uses a device for.
 */

/** One use that would end if the device got another driver. @internal */
export interface Use {
  readonly kind: 'disk' | 'network' | 'display' | 'console' | 'keyboard' | 'virtual-functions' | 'program';
  /** What a sentence says that begins with the device: `holds / (nvme0n1p2)`. */
  readonly text: string;
}
