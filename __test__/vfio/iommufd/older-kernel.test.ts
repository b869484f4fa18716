/**
 * An iommufd that cannot map files, as before Linux 6.13. The testbed has no such kernel, so the test disables file
 * mapping.
 */
import { NativeIommufd, NativeVfioDevice } from '#native';
import { AddressRange, GuestMemory } from '../../../ts/index.ts';
import { readPeerPolicy } from '../../../ts/dma/peer-policy.ts';
import { Sysfs } from '../../../ts/vfio/sysfs.ts';
import { VfioDevice } from '../../../ts/vfio/vfio-device.ts';
import { Ioas } from '../../../ts/vfio/iommufd/ioas.ts';
import { Edu } from '../../../examples/devices/edu.ts';
import { testWith } from '../support/devices.ts';
import { RAM_LENGTH, RAM_START, SINK, SOURCE, pattern, peerBar } from '../support/rig.ts';

const BAR = 0x1_0000_0000n;

testWith(
  { edu: 1, ivshmem: 1 },
  'without file mappings in iommufd, RAM is mapped by host address, and a BAR fails with the needed version',
  async (t, { edu: [engine = ''], ivshmem: [peerBdf = ''] }) => {
    const sysfs = new Sysfs();
    await using memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: RAM_LENGTH }] });
    const real = NativeIommufd.open();
    const old = { mapsFiles: false, newIoas: () => real.newIoas() } as unknown as NativeIommufd;
    const space = new Ioas('old', old, memory, { addressSpace: undefined, policy: readPeerPolicy() });
    const open = async (bdf: string) => {
      const handle = await NativeVfioDevice.openByFileAsync(bdf, sysfs.deviceFile(bdf) ?? NaN, real);
      return { handle, device: new VfioDevice(bdf, handle, [], { memory, close: async () => {} }) };
    };
    const devices = [await open(engine), await open(peerBdf)] as const;
    const [edu, peer] = devices;
    await space.attach(edu.handle, engine, 1);
    await space.join();
    t.false(space.target.mapsFiles);

    const driver = new Edu(edu.device);
    memory.write(SOURCE, pattern(1));
    await driver.copy(SOURCE, SINK, Edu.BUFFER_SIZE);
    t.deepEqual(memory.read(SINK, Edu.BUFFER_SIZE), pattern(1));

    const bar = peerBar(peer.device);
    const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    await window.mapToGuest(BAR);
    const status = memory.inspect().targets[0]?.mappings.find(({ region }) => region === 'bar2');
    t.like(status, { state: 'failed', code: 'ERR_UNSUPPORTED' });
    t.regex(status?.reason ?? '', /Linux 6\.19/);

    await window.remove();
    for (const { device } of devices.toReversed()) await device.closeDevice();
    await space.release(engine);
    real.close();
  },
);
