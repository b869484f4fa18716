/**
 * The devices that share an address space of iommufd. The native core is a fake here: real address spaces that accept
 * different devices need several IOMMUs.
 */
import test from 'ava';
import { failCloseOf, spaces } from './support/fake-address-spaces.ts';
import { GuestMemory, VfioContainerManager } from '../ts/index.ts';
import { IommufdBackend } from '../ts/vfio/iommufd/iommufd-backend.ts';
import { rejectsCode } from './support/errors.ts';
import { fakeSysfs } from './support/fake-sysfs.ts';

test.serial('a device that an address space rejects gets another one, which closes with its last device', async (t) => {
  await using memory = await GuestMemory.create();
  const numbers = [6, 8, 7, 9];
  const devices = numbers.map((file) => [`0000:0${file}:00.0`, { driver: 'vfio-pci', group: file, file }] as const);
  const sysfs = fakeSysfs(t, Object.fromEntries(devices));
  const backend = new IommufdBackend(memory, 'best-effort', sysfs);
  const placed = [];
  for (const [bdf] of devices) placed.push(await backend.open(sysfs.device(bdf)));
  const within = () => spaces.map((space) => [...space.devices]);
  t.deepEqual(within(), [
    [6, 7],
    [8, 9],
  ]);
  t.deepEqual(
    backend.inspect().map(({ groups }) => groups.map(({ id }) => id)),
    [
      [6, 7],
      [8, 9],
    ],
  );
  t.is(memory.inspect().targets.length, 2, 'each has all of guest memory');
  const left: number[][][] = [];
  for (const { prepareLeave, handle, leave } of placed) {
    await prepareLeave();
    await handle.closeAsync();
    await leave();
    left.push(within());
  }
  t.deepEqual(left, [[[7], [8, 9]], [[7], [9]], [[9]], []]);
  t.deepEqual(memory.inspect().targets, []);
});

test.serial('reports that an opened device cannot be closed again, and leaves its address space', async (t) => {
  await using memory = await GuestMemory.create();
  const sysfs = fakeSysfs(t, { '0000:05:00.0': { driver: 'vfio-pci', group: 5, file: 5 } });
  const vfio = new VfioContainerManager(memory, { backend: 'iommufd' }, sysfs);
  const count = spaces.length;
  failCloseOf(5);
  const error = await rejectsCode(t, vfio.open('0000:05:00.0'), 'ERR_ROLLBACK_FAILED');
  t.regex(error.message, /^there is no PCI device 0000:05:00.0/, 'the fake /sys has no addresses of BARs');
  t.regex(error.message, /the device does not close/);
  t.is(spaces.length, count, 'the address space is closed');
});

test.serial('closes a device again whose addresses in /sys cannot be read, with its address space', async (t) => {
  await using memory = await GuestMemory.create();
  const sysfs = fakeSysfs(t, { '0000:06:00.0': { driver: 'vfio-pci', group: 6, file: 6 } });
  const vfio = new VfioContainerManager(memory, { backend: 'iommufd' }, sysfs);
  const count = spaces.length;
  await rejectsCode(t, vfio.open('0000:06:00.0'), 'ERR_DEVICE_NOT_FOUND');
  t.is(spaces.length, count);
  t.deepEqual(memory.inspect().targets, []);
  t.deepEqual(vfio.inspect().containers, []);
});
