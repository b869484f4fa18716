/**
 * The checks of a VFIO device before a call of the kernel. Devices are fakes here; __test__/vfio/hot-reset.test.ts and
 * interrupts.test.ts use real ones.
 */
import { NativeMemoryFile, type NativeVfioDevice } from '#native';
import test, { type ExecutionContext } from 'ava';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GuestMemory } from '../ts/index.ts';
import { Sysfs } from '../ts/vfio/sysfs.ts';
import { VfioDevice } from '../ts/vfio/vfio-device.ts';
import { rejectsCode, throwsCode } from './support/errors.ts';

const MEMORY = await GuestMemory.create();

/**
 * A device with 256 bytes of config space and these devices on its bus. Records the devices that were reset with it.
 */
function device(bdf: string, bus: readonly string[]): { device: VfioDevice; resets: NativeVfioDevice[][] } {
  const resets: NativeVfioDevice[][] = [];
  const region = { length: 256n, fileOffset: 0n, mmapAreas: new BigUint64Array(), msixMappable: false };
  const native: Partial<NativeVfioDevice> = {
    memoryFile: () => NativeMemoryFile.create(4096n, bdf, 0),
    regionInfo: (index) => (index === 7 ? { ...region, readable: true, writable: true } : null),
    irqCount: () => 0,
    hotResetInfo: () => [...bus],
    hotReset: async (others) => void resets.push(others),
  };
  const keeper = { memory: MEMORY, close: async () => {} };
  return { device: new VfioDevice(bdf, native as NativeVfioDevice, [], keeper), resets };
}

const BUS = ['0000:03:00.0', '0000:03:00.1', '0000:03:00.2'];

test('a reset that affects devices outside of the list names them', async (t) => {
  const { device: first, resets } = device('0000:03:00.0', BUS);
  const { device: second } = device('0000:03:00.1', BUS);
  const alone = await rejectsCode(t, first.hotReset([]), 'ERR_RESET_UNSUPPORTED');
  t.regex(alone.message, /0000:03:00\.1, 0000:03:00\.2/);
  t.is(alone.bdf, '0000:03:00.0');
  const missing = await rejectsCode(t, first.hotReset([second]), 'ERR_RESET_UNSUPPORTED');
  t.regex(missing.message, / 0000:03:00\.2 /);
  t.false(missing.message.includes('00.1'));
  t.deepEqual(resets, []);
});

test('exactly the affected devices take part in the reset', async (t) => {
  const { device: first, resets } = device('0000:03:00.0', BUS);
  const others = [...BUS.slice(1), '0000:04:00.0'].map((bdf) => device(bdf, BUS).device);
  await first.hotReset([first, ...others]);
  t.is(resets.length, 1);
  t.is(resets[0]?.length, 2);
});

/** Returns a fake /sys with one device. @param make makes its file `resource` */
function sysfsWithResource(t: ExecutionContext, make: (path: string) => void): Sysfs {
  const root = mkdtempSync(join(tmpdir(), 'peerdma-sysfs-'));
  t.teardown(() => rmSync(root, { recursive: true }));
  const folder = join(root, 'bus/pci/devices/0000:03:00.0');
  mkdirSync(folder, { recursive: true });
  make(join(folder, 'resource'));
  return new Sysfs(root);
}

test('the host addresses of BARs are those of /sys, without addresses that are not assigned', (t) => {
  const none = '0x0000000000000000 0x0000000000000000 0x0000000000000000';
  const lines = [
    '0x00000000febf1000 0x00000000febf1fff 0x0000000000040200',
    none,
    '0x0000380000000000 0x00003807ffffffff 0x000000000014220c',
    none,
    '0x000000000000c000 0x000000000000c03f 0x0000000000040101',
    '0x0000000000001000 0x0000000000001fff 0x0000000020040200', // IORESOURCE_UNSET
    '0x00000000feb80000 0x00000000febbffff 0x0000000000046200',
    '0x00000000deadb000 0x00000000deadbfff 0x0000000000040200',
  ];
  const sysfs = sysfsWithResource(t, (path) => writeFileSync(path, `${lines.join('\n')}\n`));
  t.deepEqual(sysfs.hostAddresses('0000:03:00.0'), [
    0xfebf1000n,
    undefined,
    0x380000000000n,
    undefined,
    0xc000n,
    undefined,
    0xfeb80000n,
  ]);
});

for (const [what, make] of [
  ['is missing', () => {}],
  ['is a folder', (path: string) => mkdirSync(path)],
  ['cannot be opened', (path: string) => symlinkSync('resource', path)], // ELOOP, which root has too
] as const) {
  test(`rejects reading the host addresses of a device whose file resource ${what}`, (t) => {
    const sysfs = sysfsWithResource(t, make);
    throwsCode(t, () => sysfs.hostAddresses('0000:03:00.0'), 'ERR_DEVICE_NOT_FOUND');
  });
}

test('a device whose file resource lists no BAR has no host addresses', (t) => {
  const sysfs = sysfsWithResource(t, (path) => writeFileSync(path, ''));
  t.deepEqual(sysfs.hostAddresses('0000:03:00.0'), Array(7).fill(undefined));
});
