/**
 * A device's memory by offsets in its file: which region they fall into.
 */
import test from 'ava';
import { regionAccess } from '../ts/vfio/region-access.ts';
import type { VfioRegion } from '../ts/vfio/vfio-region.ts';
import { throwsCode } from './support/errors.ts';

function region(fileOffset: bigint, length: bigint, log: string[]): VfioRegion {
  const made: Pick<VfioRegion, 'fileOffset' | 'length' | 'read' | 'write'> = {
    fileOffset,
    length,
    read: (offset, count) => {
      log.push(`read ${count} at ${offset} of ${fileOffset}`);
      return new Uint8Array(count).fill(7);
    },
    write: (offset, bytes) => void log.push(`write ${bytes.length} at ${offset} of ${fileOffset}`),
  };
  return made as VfioRegion;
}

test('an access goes to the region that has all of it, at the offset in it', (t) => {
  const log: string[] = [];
  const regions = [region(0n, 0x100n, log), undefined, region(1n << 40n, 0x1000n, log)];
  const access = regionAccess('0000:01:00.0', () => regions);
  const into = new Uint8Array(4);
  access.read((1n << 40n) + 0x10n, into);
  access.write(0xfcn, into);
  t.deepEqual(into, Uint8Array.of(7, 7, 7, 7));
  t.deepEqual(log, [`read 4 at 16 of ${1n << 40n}`, 'write 4 at 252 of 0']);
  for (const offset of [0xfdn, 0x100n, (1n << 40n) - 1n, (1n << 40n) + 0xffdn]) {
    throwsCode(t, () => access.read(offset, into), 'ERR_OUT_OF_RANGE', String(offset));
    throwsCode(t, () => access.write(offset, into), 'ERR_OUT_OF_RANGE', String(offset));
  }
});
