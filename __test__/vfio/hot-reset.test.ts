/**
 * Resets of a bus, and the memory of a device meanwhile.
 */
import type { PhysicalFunction, VfioDevice, VfioRegion } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { testWith } from './support/devices.ts';
import { rig } from './support/rig.ts';

const COMMAND = 4n;
const MEMORY = 0x2;
/** The interrupt mask of ivshmem in BAR 0, which a reset clears (QEMU, docs/specs/ivshmem-spec.rst). */
const INTERRUPT_MASK = 0n;

/** The ivshmem behind a port: the bus of the root complex cannot be reset. */
function behindPort(addresses: readonly string[]): string {
  const found = addresses.find((bdf) => !bdf.startsWith('0000:00:'));
  if (found === undefined) throw new Error('no ivshmem is behind a port');
  return found;
}

function registers(device: VfioDevice): VfioRegion {
  const bar = device.regions[0];
  if (bar === undefined) throw new Error(`${device.bdf} has no BAR 0`);
  return bar;
}

function decode(device: VfioDevice, on: boolean): void {
  const [low = 0, high = 0] = device.config.read(COMMAND, 2);
  device.config.write(COMMAND, Uint8Array.of(on ? low | MEMORY : low & ~MEMORY, high));
}

testWith(
  { edu: 1, ivshmem: 1, nvme: 1 },
  'a device on the root complex has no bus that can be reset',
  async (t, { edu, ivshmem, nvme }) => {
    const { open } = await rig(t, false);
    for (const bdf of [edu[0], ivshmem.find((one) => one.startsWith('0000:00:')), nvme[0]]) {
      const device = await open(bdf ?? '');
      const error = await rejectsCode(t, device.hotReset([]), 'ERR_RESET_UNSUPPORTED');
      t.is(error.bdf, bdf);
      t.is(error.errno, 'ENODEV');
    }
  },
);

testWith(
  { edu: 1, ivshmem: 2 },
  'a bus is reset, and config space is as before',
  async (t, { edu: [eduBdf = ''], ivshmem }) => {
    const { open } = await rig(t, false);
    const device = await open(behindPort(ivshmem));
    const edu = await open(eduBdf);
    decode(device, true);
    const bar = registers(device);
    const before = device.config.read(0n, 64);
    for (const others of [[], [device], [edu, device, edu]]) {
      bar.write32(INTERRUPT_MASK, 0x7);
      t.is(bar.read32(INTERRUPT_MASK), 0x7);
      await device.hotReset(others);
      t.is(bar.read32(INTERRUPT_MASK), 0, 'the reset has cleared it');
      t.deepEqual(device.config.read(0n, 64), before);
    }
  },
);

testWith(
  { ivshmem: 2 },
  'memory decode stays off over a reset, and works once it is turned on',
  async (t, { ivshmem }) => {
    const { open } = await rig(t, false);
    const device = await open(behindPort(ivshmem));
    decode(device, true);
    const bar = registers(device);
    bar.write32(INTERRUPT_MASK, 0x3);
    decode(device, false);
    await device.hotReset([]);
    throwsCode(t, () => bar.read32(INTERRUPT_MASK), 'ERR_BAR_DISABLED');
    decode(device, true);
    t.is(bar.read32(INTERRUPT_MASK), 0);
  },
);

testWith({ ivshmem: 2 }, 'accesses during the reset of a bus wait for its end', async (t, { ivshmem }) => {
  const { open } = await rig(t, false);
  const device = await open(behindPort(ivshmem));
  decode(device, true);
  const bar = registers(device);
  for (let round = 0; round < 5; round++) {
    bar.write32(INTERRUPT_MASK, 0x1);
    const resets = [device.hotReset([]), device.hotReset([])];
    for (let access = 0; access < 20; access++) t.true(bar.read32(INTERRUPT_MASK) <= 1);
    await Promise.all(resets);
    t.is(bar.read32(INTERRUPT_MASK), 0);
  }
});

testWith(
  { ivshmem: 2 },
  'rejects a reset with an object that is not an open device of this process',
  async (t, { ivshmem }) => {
    const { open } = await rig(t, false);
    const device = await open(behindPort(ivshmem));
    const stranger = { bdf: device.bdf } as PhysicalFunction;
    await rejectsCode(t, device.hotReset([stranger]), 'ERR_INVALID_ARGUMENT');
    await rejectsCode(t, device.hotReset(undefined as unknown as []), 'ERR_INVALID_ARGUMENT');
    await device.close();
    await rejectsCode(t, device.hotReset([]), 'ERR_CLOSED');
  },
);

testWith({ any: 1 }, 'a region reports the host address of its BAR', async (t, { any }) => {
  const { open } = await rig(t, false);
  for (const bdf of any) {
    if (bdf === process.env['PEERDMA_TESTBED_ENTANGLED']) continue; // which cannot be opened
    const device = await open(bdf);
    t.is(device.config.hostAddress, undefined);
    for (const region of device.regions.slice(0, 6)) {
      if (region === undefined) continue;
      // The address in the BAR itself, set by the host. The register in VFIO's config space is emulated until it is
      // written.
      const at = device.config.read32(BigInt(0x10 + 4 * region.index));
      const wide = (at & 0x6) === 0x4 ? BigInt(device.config.read32(BigInt(0x14 + 4 * region.index))) << 32n : 0n;
      t.is(region.hostAddress, wide | BigInt((at & ~0xf) >>> 0), `${bdf} BAR ${region.index}`);
      t.is((region.hostAddress ?? 1n) % region.length, 0n);
    }
  }
});
