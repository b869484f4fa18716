// The text of objects for console.log: hexadecimal addresses and the state, before and after their end.
import { NativeMemoryFile, type NativeVfioDevice } from '#native';
import test from 'ava';
import { inspect } from 'node:util';
import {
  AddressRange,
  AssignedDevice,
  EventFd,
  GuestMemory,
  type HostMemory,
  MemoryFile,
  UnixSocket,
  VfioContainerManager,
} from '../ts/index.ts';
import { DmaBuffer } from '../ts/driver.ts';
import { SimulatedDevice, SimulatedIommu } from '../ts/testing.ts';
import { VfioDevice } from '../ts/vfio/vfio-device.ts';
import { at, guest, PAGE, pages, taggedFile } from './support/pages.ts';
import { RecordingTarget } from './support/recording-target.ts';
import { pairOf } from './vhost-user/support/scene.ts';

/** The text of a value in an object of as many levels as `inspect` shows. */
const nested = (value: unknown): string => inspect({ value }, { depth: 0 });

test('shows a range in hexadecimal with its size, at any depth', (t) => {
  const range = AddressRange.of(0x1000n, 0x2000n);
  t.is(inspect(range), 'AddressRange 0x1000..0x3000 (8 KiB)');
  t.is(nested(range), '{ value: AddressRange 0x1000..0x3000 (8 KiB) }');
  t.is(inspect([AddressRange.of(0n, 1n << 64n)]), '[ AddressRange 0x0..0x10000000000000000 (16 EiB) ]');
  t.is(inspect(AddressRange.of(0xfffn, 3n)), 'AddressRange 0xfff..0x1002 (3 B)');
});

test('shows whether an event is open, listens or is closed, and reads no count', (t) => {
  const event = EventFd.create();
  event.signal(3n);
  t.is(inspect(event), `EventFd { fd: ${event.fd}, open }`);
  t.is(event.take(), 3n);
  event.onSignal(() => {});
  t.is(inspect(event), `EventFd { fd: ${event.fd}, open, listening }`);
  event.close();
  t.is(inspect(event), 'EventFd { closed }');
  t.is(nested(event), '{ value: [EventFd] }');
});

test('shows whether a socket and a descriptor are open', async (t) => {
  const [one, other] = UnixSocket.pair();
  t.is(inspect(one), `UnixSocket { fd: ${one.fd}, open }`);
  await one.send(Uint8Array.of(1), { descriptors: [one] });
  const descriptor = (await other.receive(1))?.descriptors[0];
  t.is(inspect(descriptor), `OwnedDescriptor { fd: ${descriptor?.fd}, open }`);
  descriptor?.close();
  t.is(inspect(descriptor), 'OwnedDescriptor { closed }');
  one.close();
  other.close();
  t.is(inspect(one), 'UnixSocket { closed }');
});

test('shows the state of a vhost-user target', async (t) => {
  const { backEnd, target } = await pairOf(t, {}, { name: 'disk' });
  t.is(inspect(target), 'VhostUserTarget "disk" { connected }');
  backEnd.die();
  await target.close();
  t.is(inspect(target), 'VhostUserTarget "disk" { closed }');
});

test('shows the size, the descriptor and the mappings of a file', async (t) => {
  const memory = await guest(t);
  const file = MemoryFile.create(at(4), { name: 'rom' });
  const { fd } = file;
  t.is(inspect(file), `MemoryFile "rom" (16 KiB) { fd: ${fd}, pageSize: 4 KiB, open }`);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(8, 1) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  t.is(inspect(file), `MemoryFile "rom" (16 KiB) { fd: ${fd}, pageSize: 4 KiB, open, mapped }`);
  file.close();
  t.is(inspect(file), 'MemoryFile "rom" { closed, mapped }');
  await region.remove();
  t.is(inspect(file), 'MemoryFile "rom" { closed }');
});

test('shows where regions and windows are, and whether they are active', async (t) => {
  const memory = await guest(t);
  const region = await memory.regions.addRegion({ name: 'bios\u001b[2J', range: pages(8, 2) });
  t.is(inspect(region), 'Region "bios?[2J" 0x8000..0xa000 (8 KiB) { inactive }');
  await region.mapToGuest({ writable: false });
  t.is(inspect(region), 'Region "bios?[2J" 0x8000..0xa000 (8 KiB) { active, read-only }');
  await region.mapToGuest();
  t.is(inspect({ region }, { depth: 0 }), '{ region: [Region "bios?[2J" 0x8000..0xa000 (8 KiB)] }');
  await region.remove();
  t.is(inspect(region), 'Region "bios?[2J" 0x8000..0xa000 (8 KiB) { removed }');

  const bar = memory.newDeviceMemory({ name: 'bar', length: at(2) });
  await bar.mapToGuest(at(16));
  t.is(inspect(bar), 'DeviceMemory "bar" (8 KiB) { range: 0x10000..0x12000, active }');
  await bar.unmapFromGuest();
  t.is(inspect(bar), 'DeviceMemory "bar" (8 KiB) { inactive }');
  await memory.close();
  t.is(inspect(bar), 'DeviceMemory "bar" (8 KiB) { removed }');
  t.is(inspect(memory), `GuestMemory ${memory.id} { addressWidth: 32, regions: 0, targets: 0, closed }`);
});

test('shows targets, their host memory and DMA buffers', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget({ needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  t.is(inspect(handle), `DmaMapperHandle "recorder" { peerToPeer: 'best-effort', joined }`);
  t.is(inspect(memory), `GuestMemory ${memory.id} { addressWidth: 32, regions: 1, targets: 1, open }`);
  const host = target.held()[0]?.hostMemory as HostMemory;
  t.is(inspect(host), 'HostMemory (4 KiB) { leased }');
  const buffer = await DmaBuffer.allocate(memory, 100n);
  const range = AddressRange.of(buffer.iova, 100n);
  t.is(inspect(buffer), `DmaBuffer ${range} (100 B) { open }`);
  await buffer.close();
  t.is(inspect(buffer), `DmaBuffer ${range} (100 B) { closed }`);
  await handle.remove();
  t.is(inspect(handle), `DmaMapperHandle "recorder" { peerToPeer: 'best-effort', left }`);
  t.is(inspect(host), 'HostMemory (4 KiB) { released }');
});

test('shows simulated and assigned devices with their regions, and accesses no register', async (t) => {
  const memory = await guest(t);
  const registers = { read: (): never => t.fail(), write: (): never => t.fail() };
  const device = new SimulatedDevice({
    bdf: '0000:00:04.0',
    bars: [
      { index: 0, length: 0x2000n, hostAddress: 0xfe00_0000n },
      { index: 1, length: 0x100n, registers },
    ],
  });
  t.is(inspect(device), 'SimulatedDevice 0000:00:04.0 { memory decode: on, open }');
  t.is(
    inspect(device.regions[0]),
    'SimulatedRegion 0 of 0000:00:04.0 (8 KiB) { hostAddress: 0xfe000000, mappable: 0x0..0x2000 }',
  );
  t.is(inspect(device.regions[1]), 'SimulatedRegion 1 of 0000:00:04.0 (256 B) { not mappable }');
  const assigned = await AssignedDevice.create({ device, memory });
  t.is(inspect(assigned), 'AssignedDevice 0000:00:04.0 { open }');
  await assigned.configWrite(0x10, 4, 0x10_0000);
  await assigned.configWrite(4, 2, 2);
  t.is(inspect(assigned), 'AssignedDevice 0000:00:04.0 { BAR 0: 0x100000, open }');
  t.is(nested(assigned), '{ value: [AssignedDevice 0000:00:04.0] }');
  await assigned.close();
  t.is(inspect(assigned), 'AssignedDevice 0000:00:04.0 { closed }');
  t.is(inspect(device), 'SimulatedDevice 0000:00:04.0 { closed }');
  t.is(inspect(device.regions[1]), 'SimulatedRegion 1 of 0000:00:04.0 (256 B) { not mappable }');
});

test('shows VFIO devices with their back end and state, and asks the kernel for nothing', async (t) => {
  const memory = await guest(t);
  const bdf = '0000:03:00.0';
  const region = { length: 256n, fileOffset: 0n, mmapAreas: new BigUint64Array(), msixMappable: false };
  const native: Partial<NativeVfioDevice> = {
    memoryFile: () => NativeMemoryFile.create(PAGE, bdf, 0),
    regionInfo: (index) => (index === 7 ? { ...region, readable: true, writable: true } : null),
    irqCount: () => 0,
    closeAsync: async () => {},
  };
  const owner = { memory, backend: 'iommufd' as const, close: (device: VfioDevice) => device.closeDevice() };
  const device = new VfioDevice(bdf, native as NativeVfioDevice, [], owner);
  t.is(inspect(device), `VfioDevice ${bdf} { backend: 'iommufd', open }`);
  t.is(inspect(device.config), `VfioRegion 7 of ${bdf} (256 B) { not mappable }`);
  await device.close();
  t.is(inspect(device), `VfioDevice ${bdf} { backend: 'iommufd', closed }`);
  const vfio = new VfioContainerManager(memory, { backend: 'type1' });
  t.is(inspect(vfio), `VfioContainerManager { backend: 'type1', devices: none, open }`);
  await vfio.close();
  t.is(inspect(vfio), `VfioContainerManager { backend: 'type1', devices: none, closed }`);
  t.regex(
    inspect(vfio.inspect()),
    /^VfioSnapshot \{\n {2}backend: 'type1',\n {2}reason: .*,\n {2}containers: \[\]\n\}$/,
  );
});

test('shows ranges and mappings of a snapshot, whose data stays plain', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const file = taggedFile(t, 'file', 1, 1);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(8, 1) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  await memory.dmaMappers.addDmaMapper(new SimulatedIommu());
  const snapshot = memory.inspect();
  const text = inspect(snapshot);
  t.regex(text, /^MemorySnapshot \{/);
  t.regex(text, /range: '0x8000\.\.0x9000'/);
  t.regex(text, /backing: 'file\+0x0'/);
  t.regex(text, /state: 'mapped'/);
  t.notRegex(text, /\[Object\]|\[Array\]/);
  t.is(inspect({ snapshot }, { depth: 0 }), '{ snapshot: [MemorySnapshot] }');
  t.regex(inspect(snapshot, { depth: null }), /range: '0x8000\.\.0x9000'/);
  const copy = JSON.parse(JSON.stringify(snapshot)) as unknown;
  t.deepEqual(snapshot, copy as typeof snapshot);
  t.deepEqual(structuredClone(snapshot), snapshot);
  t.is(snapshot.flat[0]?.start, '0x0');
});

test('shows the name of the class for a proxy, whose private fields cannot be read', (t) => {
  const file = MemoryFile.create(PAGE);
  t.teardown(() => file.close());
  t.is(inspect(new Proxy(file, {})), '[MemoryFile]');
  t.notThrows(() => inspect([MemoryFile.prototype, EventFd.prototype, AddressRange.prototype, GuestMemory.prototype]));
});
