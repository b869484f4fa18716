/**
 * Problems of a device that /sys reveals before it is opened. /sys is a fake here.
 *
 * __test__/vfio/opening.test.ts causes the errors of real devices.
 */
import test, { type ExecutionContext } from 'ava';
import { GuestMemory, VfioContainerManager } from '../ts/index.ts';
import { notViable } from '../ts/vfio/opening-errors.ts';
import { rejectsCode, throwsCode } from './support/errors.ts';
import { type FakeDevice, fakeSysfs } from './support/fake-sysfs.ts';

async function manager(t: ExecutionContext, devices: Record<string, FakeDevice>): Promise<VfioContainerManager> {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  return new VfioContainerManager(memory, {}, fakeSysfs(t, devices));
}

test('without an IOMMU group the remedy is to turn on the IOMMU', async (t) => {
  const vfio = await manager(t, { '0000:01:00.0': { driver: 'vfio-pci' } });
  const error = await rejectsCode(t, vfio.open('01:00.0'), 'ERR_NO_IOMMU_GROUP');
  t.is(error.bdf, '0000:01:00.0');
  t.regex(error.message, /intel_iommu=on/);
});

test('without vfio-pci the remedy is to bind the device', async (t) => {
  const vfio = await manager(t, { '0000:01:00.0': { driver: 'nvme', group: 3 }, '0000:02:00.0': { group: 4 } });
  const used = await rejectsCode(t, vfio.open('0000:01:00.0'), 'ERR_DEVICE_NOT_BOUND');
  t.regex(used.message, /in use by the driver nvme: bind it to vfio-pci/);
  const unused = await rejectsCode(t, vfio.open('0000:02:00.0'), 'ERR_DEVICE_NOT_BOUND');
  t.regex(unused.message, /bound to no driver/);
});

test('rejects a device that does not exist, and an invalid address', async (t) => {
  const vfio = await manager(t, {});
  t.is((await rejectsCode(t, vfio.open('0000:03:00.0'), 'ERR_DEVICE_NOT_FOUND')).bdf, '0000:03:00.0');
  for (const bdf of ['', 'gpu', '0000:03:00', '../0000:03:00.0/..']) {
    await rejectsCode(t, vfio.open(bdf), 'ERR_INVALID_ARGUMENT', bdf);
  }
});

test('devices that do DMA for the host block a group, ports do not', (t) => {
  const group = fakeSysfs(t, {
    '0000:00:01.0': { driver: 'pcieport', group: 7 },
    '0000:01:00.0': { driver: 'vfio-pci', group: 7 },
    '0000:01:00.1': { driver: 'snd_hda_intel', group: 7 },
    '0000:01:00.2': { group: 7 },
  }).group(7);
  const { message } = notViable('0000:01:00.0', 7, group);
  t.regex(message, /: 0000:01:00\.1 \(driver snd_hda_intel\)\. /);
});

test('a container manager requires guest memory, a valid policy and a valid back end', async (t) => {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const wrong = (value: unknown) => value as never;
  throwsCode(t, () => new VfioContainerManager(wrong(undefined)), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => new VfioContainerManager(memory, { peerToPeer: wrong('always') }), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => new VfioContainerManager(memory, { backend: wrong('vfio') }), 'ERR_INVALID_ARGUMENT');
});
