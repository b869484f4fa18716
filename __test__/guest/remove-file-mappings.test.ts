// Closing a device removes exactly its memory from guest memory.
import test from 'ava';
import { AddressRange, type GuestMemory, type MemoryFile } from '../../ts/index.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { removeFileMappings } from '../../ts/guest/remove-file-mappings.ts';
import { MemoryOfDevice } from '../support/device-file.ts';
import { manyPages } from '../support/many-pages.ts';
import { at, guest, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';
import { valuesRead } from '../support/values-read.ts';

async function window(memory: GuestMemory, name: string, file: MemoryFile, gpa?: bigint): Promise<void> {
  const made = memory.newDeviceMemory({ name, length: at(4) });
  await made.addMapping({ range: AddressRange.of(0n, at(4)), backing: { file, offset: 0n } });
  if (gpa !== undefined) await made.mapToGuest(gpa);
}

/** Regions with their mappings. */
function mappings(memory: GuestMemory): string[] {
  const { regions } = memory.inspect();
  return regions.map(
    ({ name, mappings: all }) => `${name}: ${all.map(({ start, end }) => `${start}..${end}`).join(' ')}`,
  );
}

test('removeFileMappings unmaps the memory of a device wherever regions have it, and nothing else', async (t) => {
  const memory = await guest(t);
  const other = await guest(t);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const device = new MemoryOfDevice(t, 'device', 8);
  const peer = new MemoryOfDevice(t, 'peer', 8);
  const ram = taggedFile(t, 'ram', 8, 1);
  await window(memory, 'placed', device.file, at(16));
  await window(memory, 'not placed', device.file);
  await window(memory, 'peer', peer.file, at(32));
  await window(other, 'elsewhere', device.file, at(16));
  const mixed = await memory.regions.addRegion({ name: 'mixed', range: pages(15, 8), priority: 200 });
  await mixed.addMapping({ range: pages(0, 8), backing: { file: ram, offset: 0n } });
  await mixed.addMapping({ range: pages(2, 2), backing: { file: device.file, offset: 0n } });
  await mixed.addMapping({ range: pages(3, 1), backing: { file: peer.file, offset: 0n } });
  const gone = await memory.regions.addRegion({ name: 'gone', range: pages(64, 4) });
  await gone.addMapping({ range: pages(0, 4), backing: { file: device.file, offset: 0n } });
  await gone.remove();
  await mixed.mapToGuest(); // hides the window
  await removeFileMappings(guestAddressSpaceOf(memory), device.memory);
  t.deepEqual(mappings(memory), [
    'placed: ',
    'not placed: ',
    'peer: 0x0..0x4000',
    'mixed: 0x0..0x2000 0x3000..0x4000 0x4000..0x8000',
  ]);
  t.deepEqual(mappings(other), ['elsewhere: 0x0..0x4000']);
  t.false(target.held().some(({ backing }) => backing !== 'private' && backing.file.name === 'device'));
  await removeFileMappings(guestAddressSpaceOf(memory), device.memory); // nothing remains to be removed
  t.deepEqual(guestAddressSpaceOf(memory).byFile.regionsOf(device.memory), []);
  t.is(memory.read8(at(15)), 1);
});

test('removeFileMappings that fails leaves everything as before, and can be called again', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const device = new MemoryOfDevice(t, 'device', 8);
  await window(memory, 'a', device.file, at(16));
  await window(memory, 'b', device.file);
  const before = mappings(memory);
  target.judge = ({ op }) => (op === 'unmap' ? new Error('busy') : undefined);
  await t.throwsAsync(removeFileMappings(guestAddressSpaceOf(memory), device.memory));
  t.deepEqual(mappings(memory), before);
  await memory.dmaMappers.targetClosed(target);
  await removeFileMappings(guestAddressSpaceOf(memory), device.memory);
  t.deepEqual(mappings(memory), ['a: ', 'b: ']);
});

test.serial('removeFileMappings reads only the regions of the device, however many mappings exist', async (t) => {
  const memory = await guest(t);
  const space = guestAddressSpaceOf(memory);
  const device = new MemoryOfDevice(t, 'device', 8);
  const remove = async (): Promise<void> => {
    await window(memory, 'BAR', device.file, at(16));
    await removeFileMappings(space, device.memory);
  };
  await remove();
  const few = await valuesRead(remove);
  await manyPages(t, memory, 2000);
  t.is(await valuesRead(remove), few);
});
