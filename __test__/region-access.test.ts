/**
 * A device's memory by offsets in its file: which region they fall into.
 */
import { NativeMemoryFile, type NativeVfioDevice } from '#native';
import test from 'ava';
import { AddressRange } from '../ts/index.ts';
import { regionAccess } from '../ts/vfio/region-access.ts';
import { VfioDevice } from '../ts/vfio/vfio-device.ts';
import type { VfioRegion } from '../ts/vfio/vfio-region.ts';
import { throwsCode } from './support/errors.ts';
import { PAGE, guest } from './support/pages.ts';

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
  access.write((1n << 40n) + 0x20n, into);
  t.deepEqual(into, Uint8Array.of(7, 7, 7, 7));
  t.deepEqual(log, [`read 4 at 16 of ${1n << 40n}`, 'write 4 at 252 of 0', `write 4 at 32 of ${1n << 40n}`]);
  for (const offset of [0xfdn, 0x100n, (1n << 40n) - 1n, (1n << 40n) + 0xffdn]) {
    throwsCode(t, () => access.read(offset, into), 'ERR_OUT_OF_RANGE', String(offset));
    throwsCode(t, () => access.write(offset, into), 'ERR_OUT_OF_RANGE', String(offset));
  }
});

test('guest memory reads and writes the BAR of a VFIO device by accesses to its region, not by its file', async (t) => {
  const log: string[] = [];
  const info = { fileOffset: 0n, msixMappable: false, readable: true, writable: true };
  const native: Partial<NativeVfioDevice> = {
    memoryFile: () => NativeMemoryFile.create(PAGE, 'bar', 0),
    regionInfo: (index) => {
      if (index === 0) return { ...info, length: PAGE, mmapAreas: BigUint64Array.of(0n, PAGE) };
      return index === 7 ? { ...info, fileOffset: 1n << 40n, length: 256n, mmapAreas: new BigUint64Array() } : null;
    },
    irqCount: () => 0,
    memoryAccessible: true,
    revocations: 0,
    readRegion: (index, offset, into) => {
      log.push(`read ${into.length} at ${offset} of region ${index}`);
      into.fill(7);
    },
    writeRegion: (index, offset, bytes) => void log.push(`write ${bytes.join(' ')} at ${offset} of region ${index}`),
  };
  const memory = await guest(t);
  const keeper = { memory, close: async () => {} };
  const device = new VfioDevice('0000:01:00.0', native as NativeVfioDevice, [], keeper);
  const backing = device.regions[0]?.backing();
  if (backing === undefined) throw new Error('the device has a BAR');
  const window = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await window.addMapping({ range: AddressRange.of(0n, PAGE), backing });
  await window.mapToGuest(16n * PAGE);
  t.deepEqual(memory.read(16n * PAGE + 8n, 4), Uint8Array.of(7, 7, 7, 7));
  memory.write(16n * PAGE + 12n, Uint8Array.of(1, 2));
  t.deepEqual(log, ['read 4 at 8 of region 0', 'write 1 2 at 12 of region 0']);
});
