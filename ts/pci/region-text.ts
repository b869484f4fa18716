/** The text of a device's region for `console.log`. */
import { hex } from '../address-range.ts';
import { objectText } from '../object-text.ts';
import { sizeOf } from '../size.ts';
import type { DeviceRegion } from './physical-function.ts';

/** @param name of the class @internal */
export function regionText(
  depth: number,
  name: string,
  bdf: () => string,
  { index, length, mmapAreas, hostAddress }: DeviceRegion,
): string {
  return objectText(depth, name, () => [
    `${index} of ${bdf()} (${sizeOf(length)})`,
    ...(hostAddress === undefined ? [] : [`hostAddress: ${hex(hostAddress)}`]),
    mmapAreas.length === 0 ? 'not mappable' : `mappable: ${mmapAreas.join(' ')}`,
  ]);
}
