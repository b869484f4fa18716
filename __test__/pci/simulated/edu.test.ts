// The simulated edu: the registers of QEMU's (docs/specs/edu.rst), and the driver that also runs on the physical one.
import test, { type ExecutionContext } from 'ava';
import { Edu, EDU_ID } from '../../../examples/devices/edu.ts';
import type { GuestMemory } from '../../../ts/index.ts';
import { SimulatedIommu } from '../../../ts/testing.ts';
import { EventFd } from '../../../ts/event-fd.ts';
import type { DeviceRegion } from '../../../ts/pci/physical-function.ts';
import { SimulatedDevice } from '../../../ts/pci/simulated/simulated-device.ts';
import { throwsCode } from '../../support/errors.ts';
import { at, guest } from '../../support/pages.ts';
import { MASTER, MEMORY, command, region, simulated } from './support.ts';

const BUFFER = 0x40000n;

interface EduFixture {
  readonly device: SimulatedDevice;
  readonly registers: DeviceRegion;
  readonly memory: GuestMemory;
}

async function createFixture(t: ExecutionContext): Promise<EduFixture> {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(16) }] });
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  const device = SimulatedDevice.edu({ bdf: '0000:00:04.0', iommu });
  t.teardown(() => device.close());
  return { device, registers: region(device, 0), memory };
}

function event(t: ExecutionContext): EventFd {
  const made = EventFd.create();
  t.teardown(() => made.close());
  return made;
}

test('works with the driver of the demo', async (t) => {
  const { device, memory } = await createFixture(t);
  const edu = new Edu(device);
  const bytes = Uint8Array.from({ length: 2048 }, (_, index) => index * 7);
  memory.write(at(2) - 100n, bytes);
  await edu.copy(at(2) - 100n, at(8) + 4n, 2048);
  t.deepEqual(memory.read(at(8) + 4n, 2048), bytes);
  t.deepEqual(memory.read(at(8), 4), new Uint8Array(4));
  await edu.store(at(10), 3);
  t.deepEqual(memory.read(at(10), 4), Uint8Array.of(...bytes.subarray(0, 3), 0));
  t.is(device.lastFault, undefined);
  t.throws(() => new Edu(simulated(t, { bars: [{ index: 0, length: 1n << 20n }] })), {
    message: /is not an edu device/,
  });
});

test('has the config space and BAR of QEMU’s edu', async (t) => {
  const { device, registers } = await createFixture(t);
  t.is(device.config.read32(0n), EDU_ID);
  t.is(device.config.read32(8n), 0x00ff0010);
  t.is(device.config.length, 256n);
  t.is(registers.length, 1n << 20n);
  t.deepEqual(registers.mmapAreas, []);
  t.deepEqual(
    [device.interrupts.count('intx'), device.interrupts.count('msi'), device.interrupts.count('msix')],
    [1, 1, 0],
  );
  const placed = SimulatedDevice.edu({ bdf: '0000:00:04.0', hostAddress: 0xfe000000n });
  t.teardown(() => placed.close());
  t.is(region(placed, 0).hostAddress, 0xfe000000n);
});

test('computes identification, liveness and factorial', async (t) => {
  const { registers } = await createFixture(t);
  t.is(registers.read32(0x00n), 0x010000ed);
  registers.write32(0x00n, 1);
  t.is(registers.read32(0x00n), 0x010000ed);
  registers.write32(0x04n, 0x12345678);
  t.is(registers.read32(0x04n), 0xedcba987);
  for (const [of, is] of [
    [0, 1],
    [1, 1],
    [5, 120],
    [12, 479001600],
    [13, 1932053504],
    [33, 0x80000000],
    [34, 0],
    [0xffffffff, 0],
  ] as const) {
    registers.write32(0x08n, of);
    t.is(registers.read32(0x08n), is, `${of}!`);
  }
  t.is(registers.read32(0x100n), 0xffffffff, 'there is nothing');
});

test('accepts 4 bytes in registers below 0x80, and also 8 in the DMA registers', async (t) => {
  const { registers } = await createFixture(t);
  t.is(registers.read64(0x00n), (1n << 64n) - 1n);
  t.deepEqual(registers.read(0x04n, 2), Uint8Array.of(0xff, 0xff));
  registers.write(0x04n, Uint8Array.of(1, 2));
  t.is(registers.read32(0x04n), 0);
  registers.write64(0x80n, 0x1122334455667788n);
  t.is(registers.read64(0x80n), 0x1122334455667788n);
  t.is(registers.read32(0x80n), 0x55667788);
  registers.write32(0x80n, 5);
  t.is(registers.read64(0x80n), 5n);
});

test('interrupts by its pin until that is acknowledged', async (t) => {
  const { device, registers } = await createFixture(t);
  const pin = event(t);
  device.interrupts.connect('intx', [pin]);
  registers.write32(0x60n, 0x5);
  t.is(pin.take(), 1n);
  t.is(registers.read32(0x24n), 0x5);
  registers.write32(0x64n, 0x1);
  device.interrupts.unmaskIntx();
  t.is(pin.take(), 1n, 'there is one left');
  registers.write32(0x64n, 0x4);
  t.is(registers.read32(0x24n), 0);
  device.interrupts.unmaskIntx();
  t.is(pin.take(), 0n);
  registers.write32(0x60n, 0);
  t.is(pin.take(), 0n);
});

test('interrupts by message if MSI is connected', async (t) => {
  const { device, registers } = await createFixture(t);
  const message = event(t);
  command(device, MEMORY | MASTER);
  device.interrupts.connect('msi', [message]);
  registers.write32(0x60n, 0x1);
  registers.write32(0x60n, 0x2);
  t.is(message.take(), 2n);
  t.is(registers.read32(0x24n), 0x3);
  registers.write32(0x64n, 0x3);
  registers.write32(0x08n, 4);
  t.is(message.take(), 0n);
  registers.write32(0x20n, 0xff);
  t.is(registers.read32(0x20n), 0x80);
  registers.write32(0x08n, 4);
  t.is(message.take(), 1n);
  t.is(registers.read32(0x24n), 0x1);
});

function transfer(registers: DeviceRegion, source: bigint, destination: bigint, count: bigint, flags: bigint): void {
  registers.write64(0x80n, source);
  registers.write64(0x88n, destination);
  registers.write64(0x90n, count);
  registers.write64(0x98n, flags);
}

test('interrupts after a transfer if requested', async (t) => {
  const { device, registers, memory } = await createFixture(t);
  const message = event(t);
  command(device, MEMORY | MASTER);
  device.interrupts.connect('msi', [message]);
  memory.write(at(1), new Uint8Array(4096).fill(5));
  transfer(registers, at(1), BUFFER, 4096n, 0x5n);
  t.is(message.take(), 1n);
  t.is(registers.read32(0x24n), 0x100);
  t.is(registers.read64(0x98n), 0x4n, 'the start bit is gone');
  transfer(registers, BUFFER, at(4), 4096n, 0x3n);
  t.is(message.take(), 0n);
  t.deepEqual(memory.read(at(4), 4096), new Uint8Array(4096).fill(5));
  transfer(registers, BUFFER, at(6), 16n, 0x2n);
  t.deepEqual(memory.read(at(6), 16), new Uint8Array(16), 'without the start bit nothing begins');
});

test('leaves memory unchanged in a transfer that faults, and records the fault', async (t) => {
  const { device, registers, memory } = await createFixture(t);
  command(device, MEMORY | MASTER);
  memory.write(at(1), new Uint8Array(8).fill(5));
  transfer(registers, at(1), BUFFER, 8n, 0x1n);
  transfer(registers, BUFFER, at(16) - 4n, 8n, 0x3n);
  t.is(registers.read64(0x98n) & 1n, 0n, 'it came to an end');
  t.is(device.lastFault?.code, 'ERR_DMA_FAULT');
  t.deepEqual(memory.read(at(16) - 4n, 4), new Uint8Array(4));
  transfer(registers, at(20), BUFFER, 8n, 0x1n);
  t.regex(device.lastFault?.message ?? '', /0x14000/);
  transfer(registers, (1n << 64n) - 4n, BUFFER, 8n, 0x1n);
  t.is(device.lastFault?.code, 'ERR_DMA_FAULT');
  transfer(registers, BUFFER, at(2), 8n, 0x3n);
  t.deepEqual(memory.read(at(2), 8), new Uint8Array(8).fill(5), 'its buffer has what it had');
  command(device, MEMORY);
  transfer(registers, BUFFER, at(3), 8n, 0x3n);
  t.regex(device.lastFault?.message ?? '', /bus master/);
});

test('passes errors of the IOMMU other than faults through', (t) => {
  const bug = new TypeError('a bug');
  const iommu = {
    read: () => {
      throw bug;
    },
    write: () => {},
  };
  const device = SimulatedDevice.edu({ bdf: '0000:00:04.0', iommu });
  t.teardown(() => device.close());
  command(device, MEMORY | MASTER);
  t.is(
    t.throws(() => transfer(region(device, 0), 0n, BUFFER, 8n, 0x1n)),
    bug,
  );
  t.is(device.lastFault, undefined);
});

test('rejects a transfer outside of the buffer', async (t) => {
  const { device, registers, memory } = await createFixture(t);
  command(device, MEMORY | MASTER);
  for (const [source, destination, count, flags] of [
    [at(1), BUFFER - 1n, 1n, 0x1n],
    [at(1), BUFFER + 1n, 4096n, 0x1n],
    [at(1), at(2), 1n, 0x1n],
    [BUFFER + 4096n, at(1), 1n, 0x3n],
    [BUFFER, at(1), (1n << 64n) - 1n, 0x3n],
  ] as const) {
    transfer(registers, source, destination, count, flags);
    t.regex(device.lastFault?.message ?? '', /not within the buffer.*0x40000\.\.0x41000/);
  }
  t.deepEqual(memory.read(0n, Number(at(16))), new Uint8Array(Number(at(16))));
});

test('does not support a reset of its own by default, as QEMU’s edu', async (t) => {
  const { device } = await createFixture(t);
  await t.throwsAsync(device.reset(), { code: 'ERR_RESET_UNSUPPORTED' });
  const other = SimulatedDevice.edu({ bdf: '0000:00:05.0', resettable: true });
  t.teardown(() => other.close());
  const registers = region(other, 0);
  registers.write32(0x04n, 1);
  registers.write32(0x08n, 5);
  registers.write32(0x20n, 0x80);
  registers.write32(0x60n, 1);
  registers.write64(0x90n, 7n);
  await other.reset();
  for (const offset of [0x04n, 0x08n, 0x20n, 0x24n, 0x90n]) t.is(registers.read32(offset), 0, String(offset));
  await other.close();
  throwsCode(t, () => registers.read32(0n), 'ERR_CLOSED');
});
