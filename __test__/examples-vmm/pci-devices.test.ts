/**
 * The example VMM puts devices on the PCI bus of its guest.
 */
import test, { type ExecutionContext } from 'ava';
import { addDevices } from '../../examples/vmm/devices/pci-devices.ts';
import { AddressRange, GuestMemory, PciHostBridge } from '../../ts/index.ts';

async function bus(t: ExecutionContext): Promise<{ memory: GuestMemory; bridge: PciHostBridge; ids: () => string[] }> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 16n << 20n }] });
  t.teardown(() => memory.close());
  const bridge = new PciHostBridge({ memory, windows: [AddressRange.of(0xc000_0000n, 1n << 28n)] });
  /** The IDs of the functions from 00:01.0 on. */
  const ids = (): string[] =>
    [1, 2, 3].map((slot) => {
      bridge.portWrite(0xcf8, 4, 0x8000_0000 + slot * 0x800);
      return Number(bridge.portRead(0xcfc, 4)).toString(16);
    });
  return { memory, bridge, ids };
}

const NOTHING = 'ffffffff';

test('devices are on the bus from 00:01.0 on, until they are disposed', async (t) => {
  const { memory, bridge, ids } = await bus(t);
  const devices = await addDevices(memory, bridge, { backend: 'auto', devices: [], simulated: ['edu', 'memory'] });
  t.deepEqual(ids(), ['11e81234', '11101af4', NOTHING]);
  await devices[Symbol.asyncDispose]();
  t.deepEqual(ids(), [NOTHING, NOTHING, NOTHING]);
  t.deepEqual(memory.inspect().targets, []);
});

test('a guest without simulated devices has no simulated IOMMU', async (t) => {
  const { memory, bridge, ids } = await bus(t);
  await using _devices = await addDevices(memory, bridge, { backend: 'auto', devices: [], simulated: [] });
  t.deepEqual(memory.inspect().targets, []);
  t.deepEqual(ids(), [NOTHING, NOTHING, NOTHING]);
});

test('no device stays on the bus if one cannot be added', async (t) => {
  const { memory, bridge, ids } = await bus(t);
  const simulated = Array.from({ length: 32 }, () => 'edu' as const);
  await t.throwsAsync(addDevices(memory, bridge, { backend: 'auto', devices: [], simulated }), { message: /00:20\.0/ });
  t.deepEqual(ids(), [NOTHING, NOTHING, NOTHING]);
  t.deepEqual(memory.inspect().targets, []);
});

/** Makes each removal of a function fail after it. */
function failRemovals(bridge: PciHostBridge): void {
  const remove = bridge.remove.bind(bridge);
  bridge.remove = (address) => {
    remove(address);
    throw new Error(`removal of ${address}`);
  };
}

test('the others end if the end of one fails, and the first error is thrown', async (t) => {
  const { memory, bridge, ids } = await bus(t);
  const devices = await addDevices(memory, bridge, { backend: 'auto', devices: [], simulated: ['edu', 'memory'] });
  failRemovals(bridge);
  await t.throwsAsync(async () => devices[Symbol.asyncDispose](), { message: 'removal of 00:02.0' });
  t.deepEqual(ids(), [NOTHING, NOTHING, NOTHING]);
  t.deepEqual(memory.inspect().targets, []);
});

test('the error of a device that cannot be added counts more than those of the ends', async (t) => {
  const { memory, bridge, ids } = await bus(t);
  failRemovals(bridge);
  const simulated = Array.from({ length: 32 }, () => 'edu' as const);
  await t.throwsAsync(addDevices(memory, bridge, { backend: 'auto', devices: [], simulated }), { message: /00:20\.0/ });
  t.deepEqual(ids(), [NOTHING, NOTHING, NOTHING]);
  t.deepEqual(memory.inspect().targets, []);
});
