/**
 * Opening devices by their own files, and the choice of the back end. The kernel is a fake here;
 * __test__/vfio/backend-choice.test.ts and opening.test.ts use real ones.
 */
import test, { type ExecutionContext } from 'ava';
import { type FakeKernel, setFakeKernel, opened } from './support/fake-kernel.ts';
import type { NativeVfioDevice } from '#native';
import type { HostMachine } from '../ts/host.ts';
import { type ErrorCode, GuestMemory, PeerDmaError } from '../ts/index.ts';
import { readPeerPolicy } from '../ts/dma/peer-policy.ts';
import { deviceFileRefused, iommufdUnavailable, noDeviceFile } from '../ts/vfio/opening-errors.ts';
import { closeFiles, takeHandedDevice } from '../ts/vfio/handed-device.ts';
import { BackendChoice } from '../ts/vfio/backend-choice.ts';
import { Type1Backend } from '../ts/vfio/type1/type1-backend.ts';
import { rejectsCode } from './support/errors.ts';
import { type FakeDevice, fakeSysfs } from './support/fake-sysfs.ts';

const AUTOMATIC = { addressSpace: undefined, policy: readPeerPolicy() };
const BDF = '0000:01:00.0';
const ALONE: Readonly<Record<string, FakeDevice>> = { [BDF]: { driver: 'vfio-pci', group: 3, file: 7 } };
const OPEN = 'open(/dev/vfio/devices/vfio7)';
const BIND = 'ioctl(VFIO_DEVICE_BIND_IOMMUFD)';

function said(errno: string, syscall: string): PeerDmaError {
  return new PeerDmaError('ERR_SYSTEM', `${errno} from ${syscall}`, { errno, syscall });
}

for (const [errno, code, advice] of [
  ['EACCES', 'ERR_PERMISSION', /may not open \/dev\/iommu: give it read and write access/],
  ['EPERM', 'ERR_PERMISSION', /may not open \/dev\/iommu/],
  ['ENOENT', 'ERR_IOMMUFD_UNAVAILABLE', /^there is no \/dev\/iommu: .*Linux 6\.2.*modprobe iommufd/],
  ['ENODEV', 'ERR_IOMMUFD_UNAVAILABLE', /^no driver serves \/dev\/iommu: .*CONFIG_IOMMUFD.*again/],
  ['ENXIO', 'ERR_IOMMUFD_UNAVAILABLE', /^no driver serves \/dev\/iommu: .*modprobe iommufd/],
] as const) {
  test(`/dev/iommu cannot be opened: ${errno}`, (t) => {
    const cause = said(errno, 'open(/dev/iommu)');
    const error = iommufdUnavailable(cause);
    t.like(error, { code, errno, syscall: 'open(/dev/iommu)', cause });
    t.regex(error.message, advice);
    t.regex(error.message, new RegExp(`\\(${errno} from open\\(/dev/iommu\\)\\)$`), "with the kernel's error");
  });
}

test('for a device without its own file the error names the kernels that have one, and the alternative', (t) => {
  const error = noDeviceFile(BDF);
  t.like(error, { code: 'ERR_UNSUPPORTED', bdf: BDF });
  t.regex(error.message, /0000:01:00\.0.*\/dev\/vfio\/devices.*Linux 6\.6.*CONFIG_VFIO_DEVICE_CDEV.*'type1'/);
});

const USED = {
  '0000:01:00.1': { driver: 'snd_hda_intel', group: 3 },
  '0000:01:00.2': { driver: 'pcieport', group: 3 },
};

for (const [what, errno, syscall, others, code, advice] of [
  ['no permission for its file', 'EACCES', OPEN, {}, 'ERR_PERMISSION', /vfio7, the file of 0000:01:00\.0: give it/],
  ['no permission by a security policy', 'EPERM', OPEN, {}, 'ERR_DEVICE_OPEN', /refused to open 0000:01:00\.0/],
  [
    'no interrupt remapping',
    'EPERM',
    BIND,
    {},
    'ERR_NO_INTERRUPT_REMAPPING',
    /modprobe iommufd allow_unsafe_interrupts/,
  ],
  ['another process has it open', 'EBUSY', BIND, {}, 'ERR_GROUP_BUSY', /0000:01:00\.0 or its group 3 is open already/],
  [
    'harmless devices are beside it',
    'EBUSY',
    BIND,
    { '0000:01:00.2': USED['0000:01:00.2'] },
    'ERR_GROUP_BUSY',
    /open already/,
  ],
  [
    'the host uses another device of its group',
    'EPERM',
    BIND,
    USED,
    'ERR_GROUP_NOT_VIABLE',
    /group 3 .*: 0000:01:00\.1 \(driver snd_hda_intel\)\. /,
  ],
  ['no permission, and the host uses another device', 'EACCES', OPEN, USED, 'ERR_PERMISSION', /vfio7/],
  ['nobody knows', 'EIO', BIND, {}, 'ERR_DEVICE_OPEN', /dmesg has the reason/],
] as const) {
  test(`a device cannot be opened by its file: ${what}`, (t) => {
    const group = fakeSysfs(t, { ...ALONE, ...others }).group(3);
    const error = deviceFileRefused(BDF, 7, said(errno, syscall), 3, group);
    t.is(error.code, code);
    t.is(error.bdf, BDF);
    t.regex(error.message, advice);
    if (code !== 'ERR_GROUP_NOT_VIABLE') t.like(error, { errno, syscall });
  });
}

const COMPLETE: FakeKernel = { iommu: { mapsFiles: true }, device: { exports: true } };

/** The reason why type1 opens nothing. */
let type1Refuses: PeerDmaError | undefined;
Type1Backend.prototype.open = async ({ bdf }) => {
  if (type1Refuses !== undefined) throw type1Refuses;
  opened(`${bdf} by type1`);
  return { handle: {} as NativeVfioDevice, prepareLeave: async () => {}, leave: async () => {} };
};

/** Chooses a back end with these results of the kernel. `open` lists the open files. */
async function choice(
  t: ExecutionContext,
  wanted: 'auto' | 'iommufd',
  kernel: Partial<FakeKernel>,
  devices: Readonly<Record<string, FakeDevice>> = ALONE,
  version: HostMachine['kernel'] = 'unknown',
) {
  const open = setFakeKernel({ iommu: { errno: 'ENOENT' }, device: { exports: true }, ...kernel });
  const memory = await GuestMemory.create();
  t.teardown(() => memory.close());
  const sysfs = fakeSysfs(t, devices, version);
  const made = new BackendChoice(wanted, memory, sysfs);
  return { choice: made, open, place: (bdf = BDF) => made.open(sysfs.device(bdf), AUTOMATIC) };
}

for (const [what, kernel, devices, reason] of [
  ['without iommufd', {}, ALONE, /iommufd cannot be used: there is no \/dev\/iommu/],
  [
    'without permission for its iommufd',
    { ...COMPLETE, iommu: { errno: 'EACCES' } },
    ALONE,
    /may not open \/dev\/iommu/,
  ],
  ['whose iommufd cannot map files', { ...COMPLETE, iommu: { mapsFiles: false } }, ALONE, /maps no files.*6\.13/],
  [
    'without files of devices',
    COMPLETE,
    { [BDF]: { driver: 'vfio-pci', group: 3 } },
    /no file below \/dev\/vfio\/devices/,
  ],
  [
    'without permission for its device files',
    { ...COMPLETE, device: { errno: 'EACCES', syscall: OPEN } },
    ALONE,
    /vfio7/,
  ],
  [
    'on a platform without interrupt remapping',
    { ...COMPLETE, device: { errno: 'EPERM', syscall: BIND } },
    ALONE,
    /interrupt remapping/,
  ],
  [
    'that exports no BARs',
    { ...COMPLETE, device: { exports: false } },
    ALONE,
    /does not export BARs as dma-bufs.*6\.19/,
  ],
] as const satisfies readonly (readonly [
  string,
  Partial<FakeKernel>,
  Readonly<Record<string, FakeDevice>>,
  RegExp,
])[]) {
  test.serial(
    `with a kernel ${what} auto uses type1, reports the reason, and leaves nothing of iommufd open`,
    async (t) => {
      const { choice: made, open, place } = await choice(t, 'auto', kernel, devices);
      t.is(made.backend, undefined);
      t.regex(made.reason, /first device/);
      await place();
      t.is(made.backend?.name, 'type1');
      t.regex(made.reason, reason);
      t.deepEqual(open, [`${BDF} by type1`]);
    },
  );
}

const MEDIATED = '83b8f4f2-509f-382f-3c1e-e6bfe0fa1001';
const UNEXPORTED = { ...COMPLETE, device: { exports: false } };
const WITH_MEDIATED = { ...ALONE, [MEDIATED]: { driver: 'mtty', group: 8, withoutIommu: true, file: 8 } };

for (const version of ['unknown', { major: 6, minor: 19 }] as const) {
  const kernel = version === 'unknown' ? 'an unknown kernel' : 'a kernel that exports BARs';
  test.serial(`a mediated device, which has no BARs to export, opens by iommufd on ${kernel}`, async (t) => {
    const { open, place } = await choice(t, 'auto', UNEXPORTED, WITH_MEDIATED, version);
    const error = await t.throwsAsync(place(MEDIATED), { instanceOf: PeerDmaError });
    t.is(error?.syscall, 'ioctl(IOMMU_IOAS_ALLOC)', 'the call of iommufd after all checks');
    t.deepEqual(open, []);
  });
}

test.serial('a mediated device opens by type1 on a kernel that cannot export the BARs of later devices', async (t) => {
  const { choice: made, open, place } = await choice(t, 'auto', COMPLETE, WITH_MEDIATED, { major: 6, minor: 18 });
  await place(MEDIATED);
  t.is(made.backend?.name, 'type1');
  t.regex(made.reason, /does not export BARs as dma-bufs.*6\.19/);
  t.deepEqual(open, [`${MEDIATED} by type1`]);
});

for (const [what, device, others, code] of [
  ['another process has the device open', { errno: 'EBUSY', syscall: BIND }, {}, 'ERR_GROUP_BUSY'],
  ['the host uses another device of its group', { errno: 'EPERM', syscall: BIND }, USED, 'ERR_GROUP_NOT_VIABLE'],
] as const satisfies readonly (readonly [string, FakeKernel['device'], object, ErrorCode])[]) {
  test.serial(`auto decides nothing if no back end can open the device: ${what}`, async (t) => {
    const { choice: made, open, place } = await choice(t, 'auto', { ...COMPLETE, device }, { ...ALONE, ...others });
    await rejectsCode(t, place(), code);
    t.is(made.backend, undefined);
    t.regex(made.reason, /first device/);
    t.deepEqual(open, []);
  });
}

test.serial(
  'auto decides nothing by a device that type1 cannot open either, and decides with the next one',
  async (t) => {
    const { choice: made, open, place } = await choice(t, 'auto', {});
    type1Refuses = new PeerDmaError('ERR_GROUP_BUSY', 'another process has it open');
    await rejectsCode(t, place(), 'ERR_GROUP_BUSY');
    type1Refuses = undefined;
    t.is(made.backend, undefined);
    setFakeKernel(COMPLETE);
    await t.throwsAsync(place(), { instanceOf: PeerDmaError, message: /ENOMEM/ }, 'iommufd, which works now');
    t.deepEqual(open, []);
  },
);

test.serial('auto does not fall back if the kernel supports everything and another call fails', async (t) => {
  const { choice: made, open, place } = await choice(t, 'auto', COMPLETE);
  const error = await t.throwsAsync(place(), { instanceOf: PeerDmaError });
  t.is(error?.errno, 'ENOMEM');
  t.is(made.backend, undefined);
  t.deepEqual(open, [], 'neither the device nor iommufd');
});

test.serial('a requested iommufd is never replaced, and is closed if a device cannot be opened', async (t) => {
  for (const [kernel, devices, code] of [
    [{}, ALONE, 'ERR_IOMMUFD_UNAVAILABLE'],
    [COMPLETE, { [BDF]: { driver: 'vfio-pci', group: 3 } }, 'ERR_UNSUPPORTED'],
    [{ ...COMPLETE, device: { errno: 'EACCES', syscall: OPEN } }, ALONE, 'ERR_PERMISSION'],
    [{ ...COMPLETE, device: { errno: 'EPERM', syscall: BIND } }, { ...ALONE, ...USED }, 'ERR_GROUP_NOT_VIABLE'],
    [COMPLETE, { [BDF]: { driver: 'vfio-pci', file: 7 } }, 'ERR_NO_IOMMU_GROUP'],
  ] as const satisfies readonly (readonly [Partial<FakeKernel>, Readonly<Record<string, FakeDevice>>, ErrorCode])[]) {
    const { choice: made, open, place } = await choice(t, 'iommufd', kernel, devices);
    t.is(made.backend?.name, 'iommufd');
    await rejectsCode(t, place(), code);
    t.is(made.backend?.name, 'iommufd');
    t.regex(made.reason, /'iommufd' was requested/);
    t.deepEqual(open, [], code);
  }
});

test('a mediated device whose files another process has opened has its own group, and no host addresses', (t) => {
  const sysfs = fakeSysfs(t, { ...WITH_MEDIATED, '0000:02:00.0': { group: 9, withoutIommu: true } });
  const take = (bdf: string) => {
    const files = takeHandedDevice({ bdf, cdev: 0 });
    t.teardown(() => closeFiles(files));
    return files;
  };
  const files = take(MEDIATED.toUpperCase());
  t.like(sysfs.handedDevice(files), { bdf: MEDIATED, isMediated: true, driver: 'mtty', iommuGroup: 8 });
  t.deepEqual(
    sysfs.handedAddresses(files),
    Array.from({ length: 7 }, () => undefined),
  );
  const withoutIommu = sysfs.handedDevice(take('0000:02:00.0'));
  t.is(withoutIommu.iommuGroup, undefined, 'a container does not accept the group of another device without an IOMMU');
});

test('the number of a device’s own file is that of the kernel’s folder for it', (t) => {
  const sysfs = fakeSysfs(t, { ...ALONE, '0000:02:00.0': { driver: 'vfio-pci', group: 4 } });
  t.is(sysfs.deviceFile(BDF), 7);
  t.is(sysfs.deviceFile('0000:02:00.0'), undefined);
});
