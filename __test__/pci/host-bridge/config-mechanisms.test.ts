/** Config space through the ports of mechanism #1 and through ECAM. */
import test, { type ExecutionContext } from 'ava';
import { type AssignedDevice, PciHostBridge } from '../../../ts/index.ts';
import { throwsCode } from '../../support/errors.ts';
import { Fixture } from '../support/fixture.ts';
import { ECAM, byEcam, byPorts, bytesOf, ecamAddress, numberFrom, ones } from './support/guest.ts';
import { RegisterFunction } from './support/register-function.ts';

const NIC = '00:01.0';
const FAR = '01:1f.7';
const SIZES = [1, 2, 4] as const;

interface Scene {
  readonly bridge: PciHostBridge;
  readonly nic: AssignedDevice;
  readonly far: AssignedDevice;
}

/** A PCI Express device on bus 0, and a conventional one on bus 1. */
async function scene(t: ExecutionContext): Promise<Scene> {
  const fixture = await Fixture.create(t);
  const bridge = new PciHostBridge({ memory: fixture.memory, ecam: ECAM, windows: [] });
  const nic = await fixture.assign();
  const far = await fixture.assign(fixture.simulated({ pcie: undefined } as never));
  bridge.add(NIC, nic);
  bridge.add(FAR, far);
  return { bridge, nic, far };
}

test('mechanism #1 and ECAM read the bytes of the function, in all sizes', async (t) => {
  const { bridge, nic, far } = await scene(t);
  const [ports, ecam] = [byPorts(bridge), byEcam(bridge)];
  for (const [address, device] of [
    [NIC, nic],
    [FAR, far],
  ] as const) {
    for (const size of SIZES) {
      for (let offset = 0; offset < 256; offset++) {
        const expected = device.configRead(offset, size);
        t.is(await ecam.read(address, offset, size), expected, `${address} ${offset}+${size}`);
        if ((offset & 3) + size > 4) continue;
        t.is(await ports.read(address, offset, size), expected, `${address} ${offset}+${size}`);
      }
    }
  }
});

test('mechanism #1 and ECAM write the same registers, in all sizes', async (t) => {
  const { bridge, nic } = await scene(t);
  const mechanisms = [byPorts(bridge), byEcam(bridge)];
  for (const [by, config] of mechanisms.entries()) {
    for (const [offset, size] of [
      [0x3c, 1],
      [0x1c, 1],
      [0x1d, 1],
      [0x1e, 2],
      [0x1d, 2],
      [0x1c, 4],
    ] as const) {
      const value = (0x3412_5678 + by) % 2 ** (8 * size);
      await nic.configWrite(0x1c, 4, 0);
      await config.write(NIC, offset, size, value);
      t.is(nic.configRead(offset, size), value, `${offset}+${size}`);
    }
    t.is(nic.configRead(0x1c, 4), 0x3412_5678 + by);
  }
});

test('ECAM reads and writes any length, and across functions', async (t) => {
  const { bridge, nic } = await scene(t);
  for (const length of [1, 3, 5, 8, 15, 16, 64, 256]) {
    for (const offset of [0, 1, 0x0d, 0x10, 0xfd, 0x100, 0xf00]) {
      const read = await bridge.mmioRead(ecamAddress(NIC) + BigInt(offset), length);
      t.deepEqual(read, nic.ecamRead(offset, length), `${offset}+${length}`);
    }
  }
  t.deepEqual(await bridge.mmioRead(ecamAddress(NIC), 4096), nic.ecamRead(0, 4096));
  // The last bytes of the function before, which does not exist, and the first ones of this one.
  const across = await bridge.mmioRead(ecamAddress(NIC) - 2n, 4);
  t.deepEqual([...across], [0xff, 0xff, ...nic.ecamRead(0, 2)]);
  await bridge.mmioWrite(ecamAddress(NIC) + 0x1cn, Uint8Array.of(1, 2, 3, 4, 5, 6, 7));
  t.deepEqual([...nic.ecamRead(0x1c, 4)], [1, 2, 3, 4]);
  const writes = new RegisterFunction();
  const reads = new RegisterFunction();
  bridge.add('00:02.0', reads);
  bridge.add('00:02.1', writes);
  await bridge.mmioWrite(ecamAddress('00:02.1') - 1n, new Uint8Array(8));
  t.deepEqual(reads.log, ['write 1 at 4095']);
  t.deepEqual(writes.log, ['write 4 at 0', 'write 2 at 4', 'write 1 at 6']);
});

test('copies the bytes of an ECAM write that is not awaited', async (t) => {
  const { bridge, nic } = await scene(t);
  const bytes = bytesOf(0x41, 4);
  const writes = [1, 2].map(() => bridge.mmioWrite(ecamAddress(NIC) + 0x1cn, bytes));
  bytes.fill(0xee);
  await Promise.all(writes);
  t.is(nic.configRead(0x1c, 4), 0x41);
});

test('accesses of a function are naturally aligned, and have up to 4 bytes', async (t) => {
  const { bridge } = await scene(t);
  const func = new RegisterFunction();
  bridge.add('00:03.0', func);
  await bridge.mmioRead(ecamAddress('00:03.0') + 3n, 10);
  await byPorts(bridge).read('00:03.0', 0x11, 2);
  await byPorts(bridge).write('00:03.0', 0x12, 2, 0x1234);
  t.deepEqual(func.log, [
    'read 1 at 3',
    'read 4 at 4',
    'read 4 at 8',
    'read 1 at 12',
    'read 1 at 17',
    'read 1 at 18',
    'write 2 at 18',
  ]);
});

test('CONFIG_ADDRESS is written and read by a dword only, without its reserved bits', async (t) => {
  const { bridge } = await scene(t);
  await bridge.portWrite(0xcf8, 4, 0xffff_ffff);
  t.is(await bridge.portRead(0xcf8, 4), 0x80ff_fffc);
  await bridge.portWrite(0xcf8, 4, 0x8000_0800);
  for (const [port, size] of [
    [0xcf8, 1],
    [0xcf8, 2],
    [0xcf9, 1],
    [0xcfa, 2],
    [0xcfb, 1],
    [0xcf9, 2],
  ] as const) {
    await bridge.portWrite(port, size, 0);
    t.is(await bridge.portRead(port, size), 2 ** (8 * size) - 1, `${port}+${size}`);
    t.is(await bridge.portRead(0xcf8, 4), 0x8000_0800, `${port}+${size}`);
  }
});

test('an access across the bounds of CONFIG_DATA reaches its bytes there only', async (t) => {
  const { bridge, nic } = await scene(t);
  const config = byPorts(bridge);
  await config.write(NIC, 0x1c, 4, 0x4433_2211);
  t.is(await bridge.portRead(0xcfa, 4), 0x2211_ffff);
  t.is(await bridge.portRead(0xcfd, 4), 0xff44_3322);
  t.is(await bridge.portRead(0xcff, 2), 0xff44);
  await bridge.portWrite(0xcfa, 4, 0xaabb_0000);
  t.is(nic.configRead(0x1c, 4), 0x4433_aabb);
  await bridge.portWrite(0xcfe, 4, 0x0000_ccdd);
  t.is(nic.configRead(0x1c, 4), 0xccdd_aabb);
});

test('reads ones and drops writes while CONFIG_ADDRESS is not enabled, and without a function', async (t) => {
  const { bridge, nic } = await scene(t);
  await bridge.portWrite(0xcf8, 4, 0x0000_083c);
  await bridge.portWrite(0xcfc, 1, 0x55);
  t.is(nic.configRead(0x3c, 1), 0);
  t.is(await bridge.portRead(0xcfc, 4), 0xffff_ffff);
  for (const [config, address] of [
    [byPorts(bridge), '00:02.0'],
    [byPorts(bridge), '7f:00.0'],
    [byEcam(bridge), '00:02.0'],
    [byEcam(bridge), '01:00.0'],
  ] as const) {
    await config.write(address, 0, 4, 0);
    for (const size of SIZES) t.is(await config.read(address, 0, size), 2 ** (8 * size) - 1);
  }
});

test("finds the host bridge by the probe of Linux's direct access", async (t) => {
  const bridge = new PciHostBridge({ windows: [] });
  // pci_check_type1: a byte to 0xcfb must not change the dword at 0xcf8.
  await bridge.portWrite(0xcfb, 1, 1);
  await bridge.portWrite(0xcf8, 4, 0x8000_0000);
  t.is(await bridge.portRead(0xcf8, 4), 0x8000_0000);
  // pci_sanity_check: a class on bus 0 is that of a host bridge.
  const config = byPorts(bridge);
  t.is(await config.read('00:00.0', 0x0a, 2), 0x0600);
  t.is(await config.read('00:00.0', 0, 4), 0x0008_1b36);
  t.is(await config.read('00:00.0', 0x2c, 4), 0x1100_1af4);
  // pci_check_type2: the ports of mechanism #2 do not exist.
  for (const port of [0xcfb, 0xcf8, 0xcfa]) await bridge.portWrite(port, 1, 0);
  t.is(await bridge.portRead(0xcf8, 1), 0xff);
});

test('the function of the host bridge is conventional, read-only and without BARs', async (t) => {
  const bridge = new PciHostBridge({ ecam: ECAM, windows: [] });
  const before = await bridge.mmioRead(ECAM.start, 4096);
  t.is(numberFrom(before.subarray(0x0e, 0x0f)), 0);
  t.deepEqual(before.subarray(0x10, 0x28), new Uint8Array(24));
  t.deepEqual(before.subarray(0x100), ones(4096 - 256));
  await bridge.mmioWrite(ECAM.start, ones(4096));
  t.deepEqual(await bridge.mmioRead(ECAM.start, 4096), before);
});

test('rejects accesses that no guest makes', async (t) => {
  const bridge = new PciHostBridge({ ecam: ECAM, windows: [] });
  for (const [port, size, code] of [
    [0xcf7, 1, 'ERR_OUT_OF_RANGE'],
    [0xd00, 1, 'ERR_OUT_OF_RANGE'],
    [0xcf8, 3, 'ERR_INVALID_ARGUMENT'],
    [0xcf8, 8, 'ERR_INVALID_ARGUMENT'],
    [(0xcf8).valueOf() + 0.5, 1, 'ERR_INVALID_ARGUMENT'],
  ] as const) {
    throwsCode(t, () => bridge.portRead(port, size), code, `${port}+${size}`);
    throwsCode(t, () => bridge.portWrite(port, size, 0), code, `${port}+${size}`);
  }
  for (const value of [-1, 256, 0.5, NaN])
    throwsCode(t, () => bridge.portWrite(0xcfc, 1, value), 'ERR_INVALID_ARGUMENT');
  const { message } = throwsCode(t, () => bridge.mmioRead(0n, 0), 'ERR_EMPTY_RANGE');
  t.is(message, 'PciHostBridge: access failed: it has no bytes. Pass 1 byte or more.');
  throwsCode(t, () => bridge.mmioRead(0n, 4097), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => bridge.mmioRead(-1n, 4), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => bridge.mmioRead((1n << 64n) - 2n, 4), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => bridge.mmioWrite(0n, new Uint8Array()), 'ERR_EMPTY_RANGE');
});
