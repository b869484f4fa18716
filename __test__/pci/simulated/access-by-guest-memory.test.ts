// Guest memory accesses a simulated BAR as a physical one: through the device, which has to decode.
import test, { type ExecutionContext } from 'ava';
import { AddressRange, type DeviceRegion, type GuestMemory, type SimulatedDevice } from '../../../ts/index.ts';
import { throwsCode } from '../../support/errors.ts';
import { PAGE, at, guest } from '../../support/pages.ts';
import { COMMAND, D3_HOT, MEMORY, PMCSR, command, region, simulated, write16 } from './support.ts';

const BAR = 0x8000_0000n;
const LENGTH = at(2);

/** Every way in which the VMM accesses guest memory. */
const ACCESSES: Record<string, (memory: GuestMemory, gpa: bigint) => unknown> = {
  read: (memory, gpa) => memory.read(gpa, 4),
  'read of many bytes': (memory, gpa) => memory.read(gpa, 300),
  readInto: (memory, gpa) => memory.readInto(gpa, new Uint8Array(4)),
  write: (memory, gpa) => memory.write(gpa, new Uint8Array(4)),
  read8: (memory, gpa) => memory.read8(gpa),
  read16: (memory, gpa) => memory.read16(gpa),
  read32: (memory, gpa) => memory.read32(gpa),
  read64: (memory, gpa) => memory.read64(gpa),
  write8: (memory, gpa) => memory.write8(gpa, 0),
  write16: (memory, gpa) => memory.write16(gpa, 0),
  write32: (memory, gpa) => memory.write32(gpa, 0),
  write64: (memory, gpa) => memory.write64(gpa, 0n),
};

/** Guest memory with the whole BAR of a device at {@link BAR}. */
async function mapped(t: ExecutionContext): Promise<{ memory: GuestMemory; device: SimulatedDevice }> {
  const device = simulated(t, {
    bars: [{ index: 0, length: LENGTH }],
    msix: { vectors: 4, bar: 0, tableOffset: PAGE },
    powerManagement: { noSoftReset: true },
  });
  command(device, MEMORY);
  const memory = await guest(t);
  await mapBar(memory, region(device, 0), BAR);
  return { memory, device };
}

async function mapBar(memory: GuestMemory, bar: DeviceRegion, gpa: bigint): Promise<void> {
  const window = memory.newDeviceMemory({ name: 'BAR 0', length: bar.length });
  await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
  await window.mapToGuest(gpa);
}

for (const [name, access] of Object.entries(ACCESSES)) {
  test(`${name} of a simulated BAR throws while its device does not decode memory or is in D3hot`, async (t) => {
    const { memory, device } = await mapped(t);
    t.notThrows(() => access(memory, BAR));
    command(device, 0);
    throwsCode(t, () => access(memory, BAR), 'ERR_BAR_DISABLED');
    command(device, MEMORY);
    t.notThrows(() => access(memory, BAR));
    write16(device.config, PMCSR, D3_HOT);
    throwsCode(t, () => access(memory, BAR), 'ERR_BAR_DISABLED');
    write16(device.config, PMCSR, 0);
    t.notThrows(() => access(memory, BAR));
    await device.close();
    throwsCode(t, () => access(memory, BAR), 'ERR_CLOSED');
  });
}

test('reads all ones from the MSI-X table of a simulated BAR through guest memory, and drops writes', async (t) => {
  const { memory, device } = await mapped(t);
  memory.write(BAR + PAGE - 2n, new Uint8Array(8).fill(5));
  t.deepEqual(memory.read(BAR + PAGE - 2n, 4), Uint8Array.of(5, 5, 0xff, 0xff));
  t.deepEqual(region(device, 0).read(PAGE - 2n, 4), Uint8Array.of(5, 5, 0xff, 0xff));
});

test('reads no BAR that was moved away or is not placed', async (t) => {
  const { memory, device } = await mapped(t);
  memory.write8(BAR, 7);
  const window = memory.newDeviceMemory({ name: 'again', length: LENGTH });
  await window.addMapping({ range: AddressRange.of(0n, LENGTH), backing: region(device, 0).backing() });
  throwsCode(t, () => memory.read8(BAR + LENGTH), 'ERR_NOT_MAPPED');
  await window.mapToGuest(BAR + LENGTH);
  t.is(memory.read8(BAR + LENGTH), 7);
  await window.unmapFromGuest();
  throwsCode(t, () => memory.read8(BAR + LENGTH), 'ERR_NOT_MAPPED');
});

test('shares the bytes of a BAR between its region, guest memory and its contents', async (t) => {
  const { memory, device } = await mapped(t);
  memory.write64(BAR + 8n, 0x0102_0304_0506_0708n);
  t.is(region(device, 0).read64(8n), 0x0102_0304_0506_0708n);
  region(device, 0).write32(8n, 0x11);
  t.is(memory.read64(BAR + 8n), 0x0102_0304_0000_0011n);
  t.deepEqual(device.config.read(COMMAND, 1), Uint8Array.of(MEMORY));
});
