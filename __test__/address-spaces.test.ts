/**
 * The devices that share an address space of iommufd. The native core is a fake here, so a native core whose calls fail
 * is tested too; `vfio/iommufd/mock-iommus` has two IOMMUs of the kernel.
 */
import test, { type ExecutionContext } from 'ava';
import { failCloseOf, spaces } from './support/fake-address-spaces.ts';
import { type DeviceOpenOptions, GuestMemory, VfioContainerManager } from '../ts/index.ts';
import type { PlacedDevice } from '../ts/vfio/backend.ts';
import { IommufdBackend } from '../ts/vfio/iommufd/iommufd-backend.ts';
import { readPeerPolicy } from '../ts/dma/peer-policy.ts';
import { rejectsCode } from './support/errors.ts';
import { fakeSysfs } from './support/fake-sysfs.ts';

const AUTOMATIC = { addressSpace: undefined, policy: readPeerPolicy() };

test.serial('a device that an address space rejects gets another one, which closes with its last device', async (t) => {
  await using memory = await GuestMemory.create();
  const numbers = [6, 8, 7, 9];
  const devices = numbers.map((file) => [`0000:0${file}:00.0`, { driver: 'vfio-pci', group: file, file }] as const);
  const sysfs = fakeSysfs(t, Object.fromEntries(devices));
  const backend = new IommufdBackend(memory, sysfs);
  const placed = [];
  for (const [bdf] of devices) placed.push(await backend.open(sysfs.device(bdf), AUTOMATIC));
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

interface Opener {
  /** Opens the device with that number as `VfioContainerManager.open` does. */
  readonly open: (file: number, options?: DeviceOpenOptions) => Promise<PlacedDevice>;
  /** The devices of each address space with its name and domains, such as `6 7 in shared for default`. */
  readonly placed: () => string[];
  readonly names: () => string[];
}

/** Opens fake devices. @param groups of the devices, by their numbers */
async function opener(t: ExecutionContext, groups: Readonly<Record<number, number>>): Promise<Opener> {
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const devices = Object.entries(groups).map(
    ([file, group]) => [bdfOf(Number(file)), { driver: 'vfio-pci', group, file: Number(file) }] as const,
  );
  const sysfs = fakeSysfs(t, Object.fromEntries(devices));
  const backend = new IommufdBackend(memory, sysfs);
  return {
    open: async (file, { addressSpace, ...policy } = {}) => {
      const placed = await backend.open(sysfs.device(bdfOf(file)), { addressSpace, policy: readPeerPolicy(policy) });
      t.teardown(async () => {
        await placed.prepareLeave();
        await placed.handle.closeAsync();
        await placed.leave();
      });
      return placed;
    },
    placed: () =>
      backend.inspect().map(({ groups: found, addressSpace, peerToPeerDomains }) => {
        const numbers = found.flatMap(({ devices: bdfs }) => bdfs.map((bdf) => bdf.slice(6, 7)));
        return `${numbers.join(' ')} in ${addressSpace} for ${peerToPeerDomains.join(' ')}`;
      }),
    names: () => backend.inspect().map(({ name }) => name),
  };
}

const bdfOf = (file: number): string => `0000:0${file}:00.0`;
const ALL = { 3: 3, 4: 4, 6: 6, 7: 7, 8: 8 };

test.serial('devices that name an address space share it, and unnamed devices do not join it', async (t) => {
  const { open, placed } = await opener(t, ALL);
  await open(4, { addressSpace: 'shared' });
  await open(3);
  await open(6, { addressSpace: 'shared' });
  await open(7, { addressSpace: 'own' });
  t.deepEqual(placed(), ['4 6 in shared for default', '3 in undefined for default', '7 in own for default']);
});

test.serial('devices of different peer-to-peer domains do not share an address space', async (t) => {
  const { open, placed } = await opener(t, ALL);
  await open(4);
  await open(3, { peerToPeerDomains: ['a', 'default'] });
  await open(6, { peerToPeerDomains: ['default', 'a', 'a'] });
  await open(7, { peerToPeerDomains: [] });
  t.deepEqual(placed(), ['4 in undefined for default', '3 6 in undefined for a default', '7 in undefined for ']);
});

test.serial('a device that the named address space cannot take is an error, and is not open', async (t) => {
  const { open, placed, names } = await opener(t, ALL);
  await open(4, { addressSpace: 'shared' });
  const error = await rejectsCode(t, open(8, { addressSpace: 'shared' }), 'ERR_DEVICE_ATTACH');
  t.like(error, { bdf: bdfOf(8), errno: 'EINVAL', target: names()[0] });
  t.regex(error.message, /"shared" \(vfio-iommufd:\d+\): .* Open it with another addressSpace, or without one\.$/);
  t.deepEqual(placed(), ['4 in shared for default']);
  await open(8);
});

test.serial('a named address space keeps its peer-to-peer domains', async (t) => {
  const { open, placed } = await opener(t, ALL);
  await open(4, { addressSpace: 'shared', peerToPeerDomains: ['a'] });
  const error = await rejectsCode(t, open(3, { addressSpace: 'shared' }), 'ERR_INVALID_ARGUMENT');
  t.regex(error.message, /maps the peer-to-peer domains "a"\. Pass \["a"\] as peerToPeerDomains\.$/);
  await open(3, { addressSpace: 'shared', peerToPeerDomains: ['a'] });
  await open(7, { addressSpace: 'none', peerToPeerDomains: [] });
  const other = await rejectsCode(t, open(8, { addressSpace: 'none' }), 'ERR_INVALID_ARGUMENT');
  t.regex(other.message, /maps no peer-to-peer domain\. Pass \[\] as peerToPeerDomains\.$/);
  t.deepEqual(placed(), ['4 3 in shared for a', '7 in none for ']);
});

test.serial('the devices of an IOMMU group are in one address space', async (t) => {
  const { open, placed } = await opener(t, { 3: 4, 4: 4, 6: 4 });
  await open(4, { addressSpace: 'shared' });
  for (const options of [{}, { addressSpace: 'other' }]) {
    const error = await rejectsCode(t, open(3, options), 'ERR_DEVICE_ATTACH');
    t.regex(error.message, /group 4 is in the address space "shared"/);
  }
  await open(6, { addressSpace: 'shared' });
  t.deepEqual(placed(), ['4 6 in shared for default']);
});

test.serial('rejects an invalid name of an address space, and invalid domains', async (t) => {
  await using memory = await GuestMemory.create();
  const sysfs = fakeSysfs(t, { [bdfOf(4)]: { driver: 'vfio-pci', group: 4, file: 4 } });
  const vfio = new VfioContainerManager(memory, { backend: 'iommufd' }, sysfs);
  for (const given of ['', 5, null, {}] as never[]) {
    await rejectsCode(t, vfio.open(bdfOf(4), { addressSpace: given }), 'ERR_INVALID_ARGUMENT');
    await rejectsCode(t, vfio.open(bdfOf(4), { peerToPeerDomains: given }), 'ERR_INVALID_ARGUMENT');
  }
  t.deepEqual(vfio.inspect().containers, []);
});
