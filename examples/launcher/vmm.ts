/**
 * A VMM that a launcher starts: receives devices as descriptors, and drives one peer-to-peer.
 *
 * It opens no file of a device, and reads nothing in /sys.
 */
import { closeSync, existsSync } from 'node:fs';
import {
  AddressRange,
  AssignedDevice,
  GuestMemory,
  type HandedDevice,
  type OwnedDescriptor,
  PciHostBridge,
  UnixSocket,
  VfioContainerManager,
  type VfioDevice,
} from 'peerdma';
import { EduDriver } from '../devices/edu.ts';
import { GuestBar } from '../guest/bar.ts';
import { Firmware } from '../guest/firmware.ts';
import { scanBus } from '../guest/pci-bus.ts';
import { receiveAssignment } from './messages.ts';

const MiB = 1n << 20n;
const RAM = { start: 0n, length: 16n * MiB };
const SOURCE = 0x10_0000n;
const SINK = 0x20_0000n;
const WINDOW = AddressRange.of(0xe000_0000n, 256n * MiB);
/** The descriptor of the socket, by agreement with the launcher. */
const SOCKET = 3;
/** The peer's BAR that is memory. */
const BAR = 2;

using socket = UnixSocket.fromFd(SOCKET);
closeSync(SOCKET);
const { assignment, descriptors } = await receiveAssignment(socket);
const places = ['/sys', '/dev', '/proc'].filter((path) => existsSync(path));
console.log(`user ${process.getuid?.()}, of /sys, /dev and /proc there is ${places.join(' ') || 'none'}`);

await using memory = await GuestMemory.create({ ram: [RAM] });
const { backend, devices } = assignment;
const shared = descriptors[devices.length]; // the container, or the iommufd
await using vfio = new VfioContainerManager(memory, backend === 'iommufd' && shared ? { iommufd: shared } : {});
const opened: VfioDevice[] = [];
for (const [index, device] of devices.entries()) {
  opened.push(await vfio.open({ ...device, ...filesOf(descriptors[index], shared) }));
}
for (const descriptor of descriptors) descriptor.close(); // the manager has its own
const [first, second] = opened;
if (first === undefined || second === undefined) throw new Error('two devices are needed');
console.log(
  `${backend}: ${opened.map(({ bdf }) => bdf).join(' and ')} in ${vfio.inspect().containers.length} container`,
);

await using edu = await AssignedDevice.create({ device: first, memory });
await using peer = await AssignedDevice.create({ device: second, memory });
const bridge = new PciHostBridge({ memory, windows: [WINDOW] });
bridge.add('00:01.0', edu);
bridge.add('00:02.0', peer);
const [eduFunction, peerFunction] = scanBus(bridge);
if (eduFunction === undefined || peerFunction === undefined) throw new Error('the bus does not have two functions');
const [eduFirmware, peerFirmware] = [await Firmware.probe(eduFunction), await Firmware.probe(peerFunction)];
await peerFirmware.placeAll(await eduFirmware.placeAll(WINDOW.start));
await eduFirmware.enable();
await peerFirmware.enable();

const driver = new EduDriver(new GuestBar(eduFunction, eduFirmware.addressOf(0)));
const text = 'by DMA from device to device';
const bytes = new TextEncoder().encode(text);
const target = peerFirmware.addressOf(BAR);
memory.write(SOURCE, bytes);
await driver.copy(SOURCE, target, bytes.length);
const seen = new TextDecoder().decode(memory.read(target, bytes.length)); // as the processor reads the BAR
await driver.copy(target, SINK, bytes.length);
const back = new TextDecoder().decode(memory.read(SINK, bytes.length));
console.log(`the BAR has "${seen}", and DMA reads "${back}"`);
if (seen !== text || back !== text) process.exitCode = 1;

function filesOf(file: OwnedDescriptor | undefined, container: OwnedDescriptor | undefined): Partial<HandedDevice> {
  return backend === 'iommufd' ? { cdev: file } : { group: file, container };
}
