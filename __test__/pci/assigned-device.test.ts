/** A guest places, moves, enables and disables BARs through config space. Guest memory and every target are updated. */
import test from 'ava';
import { AssignedDevice, type BarEvent, GuestMemory, MemoryFile } from '../../ts/index.ts';
import { SimulatedDevice, SimulatedIommu } from '../../ts/testing.ts';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import {
  MASTER,
  MEMORY,
  barRegister,
  capability,
  command,
  readBar64,
  writeBar32,
  writeBar64,
} from './support/guest.ts';
import { MiB, RAM, Fixture } from './support/fixture.ts';
import { SpyFunction } from './support/spy-function.ts';

const LOW = 0xe000_0000n;
const HIGH = 0x40_0000_0000n;

test('starts in the power-on state, whatever the previous state of the device', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  device.config.write(0x04n, Uint8Array.of(MEMORY | MASTER, 0));
  const assigned = await fixture.assign(device);
  t.is(assigned.configRead(0x04, 2), 0);
  t.is(device.config.read(0x04n, 1)[0], 0, 'bus mastering of the hardware is off too');
  for (const bar of [0, 2, 4]) t.is(assigned.configRead(barRegister(bar), 4) & ~0xf, 0);
  t.deepEqual(
    assigned.status().map(({ bar, range }) => [bar, range]),
    [
      [0, undefined],
      [2, undefined],
      [4, undefined],
    ],
  );
  t.deepEqual(fixture.mappedBars(), []);
});

test('reports the size of a BAR in its registers', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign();
  for (const register of [0x10, 0x18, 0x1c, 0x20, 0x24]) await assigned.configWrite(register, 4, 0xffff_ffff);
  t.is(assigned.configRead(0x10, 4), 0xffff_0000);
  t.is(assigned.configRead(0x18, 4), 0xfff0_000c);
  t.is(assigned.configRead(0x1c, 4), 0xffff_ffff);
  t.is(assigned.configRead(0x20, 4), 0xffff_ff00);
  t.is(assigned.configRead(0x24, 4), 0, 'there is no BAR 5');
});

test('reaches a BAR at its current address while memory decode is on', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  const works = (): boolean[] => [LOW, LOW + 16n * MiB, HIGH].map((gpa) => fixture.reaches(gpa, device, 2));

  await writeBar64(assigned, 2, LOW);
  t.deepEqual(works(), [false, false, false], 'placed, and off');
  await command(assigned, MEMORY);
  t.deepEqual(works(), [true, false, false]);
  await writeBar64(assigned, 2, LOW + 16n * MiB);
  t.deepEqual(works(), [false, true, false], 'moved');
  await command(assigned, 0);
  await t.throwsAsync(async () => fixture.iommu.write(LOW + 16n * MiB, new Uint8Array(1)), { code: 'ERR_DMA_FAULT' });
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY | MASTER);
  t.deepEqual(works(), [false, false, true]);
  t.is(readBar64(assigned, 2), HIGH);
});

test('enables the hardware before mapping BARs, and disables it after unmapping them', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign(fixture.spy(fixture.simulated()));
  await writeBar32(assigned, 0, LOW);
  await writeBar64(assigned, 2, HIGH);
  t.deepEqual(fixture.drainLog(), [], 'the device never receives writes of BARs');

  await command(assigned, MEMORY);
  t.deepEqual(fixture.drainLog(), [
    'config 0x4 = 0x2',
    'map 0xe0000000..0xe0002000 rw',
    'map 0xe0004000..0xe0010000 rw',
    'map 0x4000000000..0x4000100000 rw',
  ]);
  await command(assigned, MEMORY | MASTER);
  t.deepEqual(fixture.drainLog(), ['config 0x4 = 0x6'], 'what does not change is not touched');
  await writeBar32(assigned, 0, LOW + MiB);
  t.deepEqual(fixture.drainLog(), [
    'unmap 0xe0000000..0xe0002000',
    'unmap 0xe0004000..0xe0010000',
    'map 0xe0100000..0xe0102000 rw',
    'map 0xe0104000..0xe0110000 rw',
  ]);
  await command(assigned, MASTER);
  t.deepEqual(
    fixture.drainLog().map((entry) => entry.split(' ')[0]),
    ['unmap', 'unmap', 'unmap', 'config'],
  );
});

test('swaps two BARs in one write, and in a sequence with decode on', async (t) => {
  const fixture = await Fixture.create(t);
  const bars = [0, 2].map((index) => ({ index, length: MiB, kind: 'memory64', prefetchable: true }) as const);
  const device = fixture.simulated({ bars, msix: undefined } as never);
  const assigned = await fixture.assign(device);
  const [here, there] = [LOW, LOW + MiB];
  const where = (): (number | undefined)[] =>
    [here, there].map((gpa) => [0, 2].find((bar) => fixture.reaches(gpa, device, bar)));
  await writeBar64(assigned, 0, here);
  await writeBar64(assigned, 2, there);
  await command(assigned, MEMORY);
  t.deepEqual(where(), [0, 2]);

  await command(assigned, 0);
  await writeBar64(assigned, 0, there);
  await writeBar64(assigned, 2, here);
  await command(assigned, MEMORY);
  t.deepEqual(where(), [2, 0]);

  await writeBar64(assigned, 0, here); // both are there now: the older region is seen
  await writeBar64(assigned, 2, there);
  t.deepEqual(where(), [0, 2]);
});

test('unmaps the BARs on leaving D0, and maps them again on returning', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(fixture.spy(device));
  const pm = capability(assigned, 0x01);
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY);
  fixture.drainLog();

  await assigned.configWrite(pm + 4, 2, 3);
  t.deepEqual(fixture.drainLog(), ['unmap 0x4000000000..0x4000100000', `config 0x${(pm + 4).toString(16)} = 0x3`]);
  t.is(assigned.configRead(pm + 4, 2) & 3, 3);
  t.deepEqual(assigned.status().find(({ bar }) => bar === 2)?.range, undefined);
  await writeBar64(assigned, 2, HIGH + MiB);
  t.deepEqual(fixture.drainLog(), [], 'it is in a low-power state');

  await assigned.configWrite(pm + 4, 2, 0);
  t.deepEqual(fixture.drainLog(), [`config 0x${(pm + 4).toString(16)} = 0x0`, 'map 0x4000100000..0x4000200000 rw']);
  t.true(fixture.reaches(HIGH + MiB, device, 2));
});

test('unmaps the BARs at a function-level reset, and maps those that decode afterwards', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(fixture.spy(device));
  const pcie = capability(assigned, 0x10);
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY);
  fixture.drainLog();
  const control = assigned.configRead(pcie + 8, 2);
  await assigned.configWrite(pcie + 8, 2, control | 0x8000);
  t.deepEqual(
    fixture.drainLog().map((entry) => entry.replace(/ = .*/, '')),
    ['unmap 0x4000000000..0x4000100000', `config 0x${(pcie + 8).toString(16)}`, 'map 0x4000000000..0x4000100000 rw'],
    'VFIO restores memory decode',
  );
  t.true(fixture.reaches(HIGH, device, 2));
});

test('reports a BAR outside the IOVA ranges of an IOMMU with the mappable ranges, and keeps working', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  const events: BarEvent[] = [];
  const listen = (message: unknown): void => {
    const event = message as BarEvent;
    if (event.memory === fixture.memory.id) events.push(event); // other tests of this process publish, too
  };
  subscribe('peerdma:pci.bar', listen);
  t.teardown(() => unsubscribe('peerdma:pci.bar', listen));

  await writeBar64(assigned, 2, 0xfee0_0000n); // where interrupts go
  await writeBar32(assigned, 0, LOW);
  await command(assigned, MEMORY);
  const status = assigned.status().find(({ bar }) => bar === 2);
  t.is(String(status?.range), '0xfee00000..0xfef00000');
  t.deepEqual(
    status?.unreachable.map(({ target }) => target),
    ['iommu', 'iommufd'],
  );
  for (const missing of status?.unreachable ?? []) {
    t.is(missing.code, 'ERR_IOVA_UNREACHABLE');
    t.regex(missing.reason ?? '', /within one of 0x0\.\.0xfee00000, 0xfef00000\.\./);
  }
  t.deepEqual(
    events.map((event) => [event.bdf, event.bar.bar, event.bar.unreachable.length]),
    [
      [assigned.bdf, 0, 0],
      [assigned.bdf, 2, 2],
      [assigned.bdf, 4, 0],
    ].slice(0, 2),
  );
  t.true(fixture.reaches(LOW, device, 0), 'its other BAR');
  t.true(
    fixture.mappedBars().some((held) => held.startsWith('0xfee00000')),
    'and another target has it',
  );

  await writeBar64(assigned, 2, HIGH);
  t.deepEqual(assigned.status().find(({ bar }) => bar === 2)?.unreachable, []);
  t.true(fixture.reaches(HIGH, device, 2));
  t.notThrows(() => JSON.stringify(assigned.inspect()));
});

test('fails the write that places a BAR, and changes nothing, if a target requires the BAR', async (t) => {
  const fixture = await Fixture.create(t, 'required');
  const device = fixture.simulated();
  const assigned = await fixture.assign(fixture.spy(device));
  await writeBar64(assigned, 2, 0xfee0_0000n);
  const before = fixture.memory.inspect();
  fixture.drainLog();
  await rejectsCode(t, command(assigned, MEMORY | MASTER), 'ERR_IOVA_UNREACHABLE');
  t.is(assigned.configRead(0x04, 2), 0);
  t.is(device.config.read(0x04n, 1)[0], 0, 'the hardware is off again');
  t.deepEqual(fixture.memory.inspect(), before);

  await writeBar64(assigned, 2, LOW);
  await command(assigned, MEMORY);
  await rejectsCode(t, assigned.configWrite(barRegister(2), 4, 0xfee0_0000), 'ERR_IOVA_UNREACHABLE');
  t.is(readBar64(assigned, 2), LOW);
  t.true(fixture.reaches(LOW, device, 2));
});

test('reports a BAR as hidden by the RAM over it', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  fixture.memory.write(RAM, Uint8Array.of(1, 2, 3));
  await writeBar64(assigned, 2, RAM);
  await command(assigned, MEMORY);
  t.deepEqual(
    assigned
      .status()
      .find(({ bar }) => bar === 2)
      ?.hidden.map(({ range, by }) => [String(range), by]),
    [['0x100000..0x200000', 'ram0']],
  );
  t.deepEqual(fixture.iommu.read(RAM, 3), Uint8Array.of(1, 2, 3));
  await writeBar64(assigned, 2, LOW);
  t.deepEqual(assigned.status().find(({ bar }) => bar === 2)?.hidden, []);
  t.true(fixture.reaches(LOW, device, 2));
});

test('traps the pages of the MSI-X table, and BARs smaller than a page', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  await writeBar32(assigned, 0, LOW);
  await writeBar32(assigned, 4, LOW + 0x20100n);
  await command(assigned, MEMORY);
  const status = assigned.status();
  t.deepEqual(status[0]?.mapped.map(String), ['0xe0000000..0xe0002000', '0xe0004000..0xe0010000']);
  t.deepEqual(
    status[0]?.trapped.map(({ range }) => String(range)),
    ['0xe0002000..0xe0004000'],
  );
  t.regex(status[0]?.trapped[0]?.reason ?? '', /MSI-X/);
  t.deepEqual(status[2]?.mapped, []);
  t.deepEqual(
    status[2]?.trapped.map(({ range }) => String(range)),
    ['0xe0020100..0xe0020200'],
  );
  t.regex(status[2]?.trapped[0]?.reason ?? '', /page/);

  // The table is emulated; the device's own is never accessed.
  const entry = Uint8Array.of(0, 0, 0xe0, 0xfe, 0, 0, 0, 0);
  assigned.mmioWrite(LOW + 0x2000n, entry);
  t.deepEqual(assigned.mmioRead(LOW + 0x2000n, 8), entry);
  t.notDeepEqual(device.regions[0]?.read(0x2000n, 8), entry);
  // The rest of those pages, and the small BAR, are in the device.
  assigned.mmioWrite(LOW + 0x2800n, Uint8Array.of(7));
  t.deepEqual(device.regions[0]?.read(0x2800n, 1), Uint8Array.of(7));
  assigned.mmioWrite(LOW + 0x20110n, Uint8Array.of(1, 2, 3, 4));
  t.deepEqual(device.regions[4]?.read(0x10n, 4), Uint8Array.of(1, 2, 3, 4));
  t.deepEqual(assigned.mmioRead(LOW + 0x20200n, 4), new Uint8Array(4).fill(0xff));
  await command(assigned, 0);
  t.deepEqual(assigned.mmioRead(LOW, 4), new Uint8Array(4).fill(0xff));
});

test('traps a BAR beyond the guest address width, and reports why', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  await writeBar64(assigned, 2, 1n << 41n);
  await command(assigned, MEMORY);
  const status = assigned.status().find(({ bar }) => bar === 2);
  t.deepEqual(status?.mapped, []);
  t.regex(status?.trapped[0]?.reason ?? '', /40-bit.*addressWidth/);
  assigned.mmioWrite(1n << 41n, Uint8Array.of(9));
  t.deepEqual(device.regions[2]?.read(0n, 1), Uint8Array.of(9));
  await writeBar64(assigned, 2, HIGH);
  t.true(fixture.reaches(HIGH, device, 2));
});

test('traps a BAR larger than the guest address space at every address', async (t) => {
  await using memory = await GuestMemory.create({ addressWidth: 32 });
  const bars = [{ index: 0, length: 1n << 33n, kind: 'memory64' as const }];
  const device = new SimulatedDevice({ bdf: '0000:00:05.0', bars });
  await using assigned = await AssignedDevice.create({ device, memory });
  await command(assigned, MEMORY);
  await writeBar64(assigned, 0, 1n << 33n);
  const status = assigned.status()[0];
  t.deepEqual(status?.mapped, []);
  t.regex(status?.trapped[0]?.reason ?? '', /32-bit address space\. Give GuestMemory\.create an addressWidth of 34/);
  assigned.mmioWrite((1n << 33n) + 8n, Uint8Array.of(9));
  t.deepEqual(device.regions[0]?.read(8n, 1), Uint8Array.of(9));
});

test('applies writes in call order, whether or not they are awaited', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  const all: Promise<void>[] = [];
  for (let round = 0; round < 10; round++) {
    all.push(writeBar32(assigned, 0, LOW + BigInt(round) * MiB), command(assigned, round % 2 ? 0 : MEMORY));
  }
  await Promise.all(all);
  t.is(assigned.configRead(0x10, 4), Number(LOW + 9n * MiB));
  t.is(assigned.configRead(0x04, 2), 0);
  t.deepEqual(fixture.mappedBars(), []);
});

test('rejects accesses outside config space, and changes nothing', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign();
  for (const [offset, size, code] of [
    [4096, 4, 'ERR_OUT_OF_RANGE'],
    [-4, 4, 'ERR_INVALID_ARGUMENT'],
    [0, 3, 'ERR_INVALID_ARGUMENT'],
    [0.5, 1, 'ERR_INVALID_ARGUMENT'],
    [0, 8, 'ERR_INVALID_ARGUMENT'],
  ] as const) {
    throwsCode(t, () => assigned.configRead(offset, size), code, `${offset}+${size}`);
    await rejectsCode(t, assigned.configWrite(offset, size, 0), code, `${offset}+${size}`);
  }
  for (const value of [-1, 256, 1.5, NaN, 1n as unknown as number]) {
    await rejectsCode(t, assigned.configWrite(0x3c, 1, value), 'ERR_INVALID_ARGUMENT', String(value));
  }
});

test('unmaps a closing device from every target first, and rejects later accesses', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign(fixture.spy(fixture.simulated()));
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY);
  fixture.drainLog();
  const write = writeBar32(assigned, 0, LOW); // comes before
  await Promise.all([write, assigned.close(), assigned.close()]);
  t.deepEqual(fixture.drainLog().slice(-2), ['unmap 0x4000000000..0x4000100000', 'close']);
  t.deepEqual(fixture.mappedBars(), []);
  t.false(fixture.memory.inspect().regions.some(({ name }) => name.includes('BAR')));
  throwsCode(t, () => assigned.configRead(0, 4), 'ERR_CLOSED');
  throwsCode(t, () => assigned.mmioRead(HIGH, 4), 'ERR_CLOSED');
  throwsCode(t, () => assigned.mmioWrite(HIGH, new Uint8Array(4)), 'ERR_CLOSED');
  await rejectsCode(t, assigned.configWrite(4, 2, 0), 'ERR_CLOSED');
  await rejectsCode(t, assigned.reset(), 'ERR_CLOSED');
});

test('keeps a device open when a target does not unmap its BAR, and closes it after that succeeds', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY);
  fixture.recorder.judge = ({ op }) => (op === 'unmap' ? new Error('stuck') : undefined);
  await rejectsCode(t, assigned.close(), 'ERR_UNMAP_FAILED');
  t.notThrows(() => device.config.read(0n, 4), 'the device is there');
  fixture.recorder.judge = () => undefined;
  fixture.recorder.closeWithMappings();
  await fixture.memory.dmaMappers.targetClosed(fixture.recorder);
  await assigned.close();
  throwsCode(t, () => device.config.read(0n, 4), 'ERR_CLOSED');
});

test('closes a device whose function was closed by its creator', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  assigned.interrupts.vector('error').onInterrupt(() => {});
  await writeBar64(assigned, 2, HIGH);
  await command(assigned, MEMORY);
  await device.close();
  await t.throwsAsync(command(assigned, 0), { code: 'ERR_CLOSED' });
  throwsCode(t, () => assigned.configRead(0, 4), 'ERR_CLOSED');
  await assigned.close();
  t.deepEqual(fixture.mappedBars(), []);
});

test('connects a device assigned to a running guest with the devices of that guest', async (t) => {
  const fixture = await Fixture.create(t);
  const first = await fixture.assign();
  await writeBar64(first, 2, HIGH);
  await command(first, MEMORY);
  const added = fixture.simulated();
  const second = await fixture.assign(added);
  await writeBar64(second, 2, HIGH + MiB);
  await command(second, MEMORY);
  t.true(fixture.reaches(HIGH + MiB, added, 2));
  const late = new SimulatedIommu({ name: 'late' });
  await fixture.memory.dmaMappers.addDmaMapper(late);
  late.write(HIGH + MiB, Uint8Array.of(1, 2, 3));
  t.deepEqual(added.regions[2]?.read(0n, 3), Uint8Array.of(1, 2, 3));
  await second.close();
  await t.throwsAsync(async () => late.write(HIGH + MiB, new Uint8Array(1)), { code: 'ERR_DMA_FAULT' });
  t.true(fixture.reaches(HIGH, first.device, 2), 'the other one stays');
});

test('rejects an invalid guest memory, invalid options, and a device in use', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  t.teardown(() => device.close());
  using file = MemoryFile.create(4096n);
  await rejectsCode(t, AssignedDevice.create({ device, memory: file as never }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, AssignedDevice.create(undefined as never), 'ERR_INVALID_ARGUMENT');
  await using assigned = await AssignedDevice.create({ device, memory: fixture.memory });
  t.is(assigned.device, device, 'the failure before has left it free');
  await rejectsCode(t, AssignedDevice.create({ device, memory: fixture.memory }), 'ERR_DEVICE_IN_USE');
});

test('rejects a device whose IOMMU maps another guest memory', async (t) => {
  const fixture = await Fixture.create(t);
  await using other = await GuestMemory.create();
  const device = Object.assign(new SpyFunction(fixture.simulated(), () => {}), { guestMemory: other });
  const error = await rejectsCode(t, AssignedDevice.create({ device, memory: fixture.memory }), 'ERR_INVALID_ARGUMENT');
  t.regex(error.message, /its IOMMU maps another guest memory/);
  await using assigned = await AssignedDevice.create({ device, memory: other });
  t.is(assigned.device, device);
});
