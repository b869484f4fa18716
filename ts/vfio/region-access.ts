/**
 * Accesses a device's memory by offsets in its file, in which each region has its own range.
 */
import { hex } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import type { DeviceAccess } from '../memory/shared-file.ts';
import type { VfioRegion } from './vfio-region.ts';

/**
 * Reads and writes by {@link VfioRegion.read} and {@link VfioRegion.write}, in aligned accesses. They have up to 4
 * bytes, or 8 if the kernel supports them: registers accept no others.
 *
 * @param regions BARs and ROM
 * @internal
 */
export function regionAccess(bdf: string, regions: () => readonly (VfioRegion | undefined)[]): DeviceAccess {
  const locate = (offset: bigint, length: number): { region: VfioRegion; at: bigint } => {
    for (const region of regions()) {
      const at = region === undefined ? -1n : offset - region.fileOffset;
      if (region !== undefined && at >= 0n && at + BigInt(length) <= region.length) return { region, at };
    }
    const text = `${length} bytes at ${hex(offset)} of the file of ${bdf} are in none of its regions`;
    throw new PeerDmaError('ERR_OUT_OF_RANGE', text, { bdf });
  };
  return {
    read: (offset, into) => {
      const { region, at } = locate(offset, into.length);
      into.set(region.read(at, into.length));
    },
    write: (offset, bytes) => {
      const { region, at } = locate(offset, bytes.length);
      region.write(at, bytes);
    },
  };
}
