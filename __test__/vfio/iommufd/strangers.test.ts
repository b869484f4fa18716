/**
 * Devices, address spaces and iommufds that do not belong together. Also BARs that another address space maps.
 */
import {
  NativeIommufd,
  type NativeIoas,
  NativeMemoryFile,
  NativeVfioContainer,
  type NativeVfioDevice,
  NativeVfioGroup,
} from '#native';
import { Edu } from '../../../examples/devices/edu.ts';
import { testWith } from '../support/devices.ts';
import { collectGarbage, groupOf, nativeEdu } from '../support/native-rig.ts';
import { openVfioFiles } from '../support/open-files.ts';
import { pattern } from '../support/rig.ts';
import { Witnesses } from '../support/witnesses.ts';
import { byFile, mapInto, unmapAll, unmapFrom, words } from '../support/native-calls.ts';
import { IoasRig } from './support/ioas-rig.ts';
import { descriptorOf } from './support/other-process.ts';

const BAR = 0x1_0000_0000n;
const LENGTH = 0x10_0000n;
const BYTES = Edu.BUFFER_SIZE;
const IN_USE = { code: 'ERR_DEVICE_IN_USE' };
const INVALID = { code: 'ERR_INVALID_ARGUMENT' };

/** The first megabyte of an ivshmem's memory. */
function mapBar(ioas: NativeIoas, peer: NativeVfioDevice, file: NativeMemoryFile = peer.memoryFile()): void {
  const offset = file.isDevice ? (peer.regionInfo(2)?.fileOffset ?? 0n) : 0n;
  mapInto(ioas, undefined, [file], words(byFile(BAR, LENGTH, { offset })));
}

function barOf(peer: NativeVfioDevice): Uint8Array {
  const bytes = new Uint8Array(BYTES);
  peer.readRegion(2, 0n, bytes);
  return bytes;
}

testWith(
  { edu: 1, ivshmem: 1 },
  'a device can be attached to one address space, and only of the iommufd that it is bound to',
  async (t, { edu: [bdf = ''], ivshmem: [peerBdf = ''] }) => {
    const [rig, other] = [new IoasRig(), new IoasRig()];
    t.teardown(() => [rig, other].map((one) => one.close()));
    const device = await rig.bind(bdf);
    await t.throwsAsync(device.attach(other.ioas), INVALID, 'of another iommufd');
    other.ioas.close(); // no attempt prevents it
    await device.attach(rig.ioas);
    await t.throwsAsync(device.attach(rig.ioas), IN_USE, 'twice');
    const second = rig.iommufd.newIoas();
    await t.throwsAsync(device.attach(second), IN_USE, 'to a second one');
    t.throws(() => rig.ioas.close(), { message: /has 1 device/ });
    await device.detach();
    await device.attach(second);
    rig.ioas.close();
    t.throws(() => second.close(), { message: /has 1 device/ });
    await device.detach();
    second.close();

    const container = NativeVfioContainer.open();
    const group = NativeVfioGroup.open(groupOf(peerBdf));
    t.teardown(() => {
      group.close();
      container.close();
    });
    await group.attachAsync(container);
    await container.setIommuAsync();
    const byGroup = await group.openDeviceAsync(peerBdf);
    t.teardown(() => byGroup.close());
    await t.throwsAsync(byGroup.attach(rig.ioas), INVALID, 'opened by its group');
    await t.throwsAsync(byGroup.detach(), INVALID);
    await t.throwsAsync(rig.bind(peerBdf), { code: 'ERR_DEVICE_OPEN', message: /EBUSY/ }, 'while its group is open');
    t.is(rig.ioas.mappingCount, 0);
    rig.ioas.close(); // no attempt prevents it
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a BAR mapped by an address space of another iommufd keeps its device open, by group or by file',
  async (t, { edu: [bdf = ''], ivshmem: [peerBdf = ''] }) => {
    const rig = await IoasRig.open(t, bdf);
    const edu = nativeEdu(bdf, rig.devices[0] as NativeVfioDevice);
    const witnesses = new Witnesses();
    const source = NativeMemoryFile.create(LENGTH, 'source', 0);
    mapInto(rig.ioas, undefined, [source], words(byFile(0x1000_0000n, LENGTH)));
    const send = async (seed: number): Promise<void> => {
      source.write(0n, pattern(seed));
      await edu.copy(0x1000_0000n, BAR, BYTES);
    };

    const home = new IoasRig();
    const peer = await home.join(peerBdf);
    mapBar(rig.ioas, peer);
    t.throws(() => peer.close(), IN_USE);
    await send(1);
    t.deepEqual(barOf(peer), pattern(1));
    // Its own address space, its iommufd and the attachment may be released.
    await peer.detach();
    home.ioas.close();
    home.iommufd.close();
    t.throws(() => peer.close(), IN_USE);
    await send(2);
    t.deepEqual(barOf(peer), pattern(2));
    unmapFrom(rig.ioas, BAR, LENGTH);
    await send(3);
    t.deepEqual(barOf(peer), pattern(2));
    peer.close();

    const container = NativeVfioContainer.open();
    const group = NativeVfioGroup.open(groupOf(peerBdf));
    await group.attachAsync(container);
    await container.setIommuAsync();
    const byGroup = await group.openDeviceAsync(peerBdf);
    mapBar(rig.ioas, byGroup);
    t.throws(() => byGroup.close(), IN_USE);
    t.throws(() => group.close(), IN_USE);
    await send(4);
    t.deepEqual(barOf(byGroup), pattern(4));
    unmapAll(rig.ioas);
    byGroup.close();
    group.close();
    container.close();
    t.is(witnesses.changed, 0);
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a dma-buf that is mapped without a record is revoked with the device, and reaches nothing',
  async (t, { edu: [bdf = ''], ivshmem: [peerBdf = ''] }) => {
    const rig = await IoasRig.open(t, bdf);
    const edu = nativeEdu(bdf, rig.devices[0] as NativeVfioDevice);
    const witnesses = new Witnesses();
    const source = NativeMemoryFile.create(LENGTH, 'source', 0);
    mapInto(rig.ioas, undefined, [source], words(byFile(0x1000_0000n, LENGTH)));
    const home = new IoasRig();
    t.teardown(() => home.close());
    const peer = await home.bind(peerBdf);
    mapBar(home.ioas, peer);
    // The API does not expose the descriptor of the BAR; a wrong caller can find it.
    const stolen = NativeMemoryFile.fromFd(descriptorOf('dmabuf'));
    unmapAll(home.ioas);
    mapBar(rig.ioas, peer, stolen);
    source.write(0n, pattern(5));
    await edu.copy(0x1000_0000n, BAR, BYTES);
    t.deepEqual(barOf(peer), pattern(5));
    peer.close();
    source.write(0n, pattern(6));
    await edu.copy(0x1000_0000n, BAR, BYTES);
    t.is(rig.ioas.mappingCount, 2, 'on record, and revoked');
    stolen.close();
    const again = await home.bind(peerBdf);
    t.deepEqual(barOf(again), pattern(5), 'nothing arrived');
    await edu.copy(0x1000_0000n, BAR, BYTES);
    t.deepEqual(barOf(again), pattern(5), 'nor does it now');
    unmapAll(rig.ioas);
    t.is(witnesses.changed, 0);
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a device can be closed after the address space that maps its BAR is dropped',
  async (t, { edu: [bdf = ''], ivshmem: [peerBdf = ''] }) => {
    const rig = new IoasRig();
    const peer = await rig.bind(peerBdf);
    const forget = async (): Promise<void> => {
      const other = new IoasRig();
      await other.join(bdf);
      mapBar(other.ioas, peer);
    };
    await forget();
    t.throws(() => peer.close(), IN_USE);
    await collectGarbage();
    peer.close();
    rig.close();
    t.deepEqual(openVfioFiles(), []);
    const iommufd = NativeIommufd.open();
    iommufd.close();
    t.throws(() => iommufd.newIoas(), { code: 'ERR_CLOSED' });
  },
);
