/** Config space mirrored into a BAR: accesses there reach the guest's config space. */
import { AddressRange } from '../address-range.ts';
import type { PlacedMirror } from './bar-quirks.ts';
import { CAP_SIZEOF } from './config/registers.ts';
import type { EmulatedArea } from './mmio.ts';

/** The guest's config space. @internal */
export interface MirroredConfig {
  /** Offset of the guest's MSI capability, if it has one. */
  readonly msiOffset: number | undefined;
  read(offset: number, length: number): Uint8Array;
  /** Writes in turn with the other config writes of the guest. */
  write(offset: number, bytes: Uint8Array): Promise<void>;
}

/**
 * Returns the areas of a mirror.
 *
 * The first two bytes of the MSI capability are an area of their own if writes to them reach the device. Such a write
 * cannot change config space, since both bytes are read-only.
 *
 * @internal
 */
export function mirrorAreas(
  { bar, range, reason, msiAcknowledge }: PlacedMirror,
  config: MirroredConfig,
): EmulatedArea[] {
  const read = (offset: bigint, length: number): Uint8Array => config.read(Number(offset), length);
  const mirror: EmulatedArea = {
    bar,
    range,
    reason,
    read,
    write: (offset, bytes) => config.write(Number(offset), bytes.slice()),
  };
  const msi = config.msiOffset;
  if (!msiAcknowledge || msi === undefined || BigInt(msi + CAP_SIZEOF) > range.length) return [mirror];
  const header = AddressRange.of(range.start + BigInt(msi), BigInt(CAP_SIZEOF));
  const acknowledged: EmulatedArea = {
    bar,
    range: header,
    reason,
    read: (offset, length) => read(BigInt(msi) + offset, length),
  };
  return [acknowledged, mirror];
}
