/**
 * Guest accesses that the device does not support. They read all ones or are dropped, as in hardware, and never throw.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { ftruncateSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { type AssignedDevice, MemoryFile, PeerDmaError, type PciFaultEvent } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { temporaryFile } from '../support/temporary-file.ts';
import { MEMORY, command, readBar64, writeBar32, writeBar64 } from './support/guest.ts';
import { MiB, Fixture } from './support/fixture.ts';

const LOW = 0xe000_0000n;
const HIGH = 0x40_0000_0000n;
const SIZES = [1, 2, 4] as const;

const conventional = { pcie: undefined } as never;

function ones(length: number): Uint8Array {
  return new Uint8Array(length).fill(0xff);
}

/** Collects the published faults of a device that does not respond. */
function faultsOf(t: ExecutionContext): PciFaultEvent[] {
  const faults: PciFaultEvent[] = [];
  const listen = (message: unknown): void => void faults.push(message as PciFaultEvent);
  subscribe('peerdma:pci.fault', listen);
  t.teardown(() => unsubscribe('peerdma:pci.fault', listen));
  return faults;
}

test('reads all ones and drops writes past the 256 bytes of a conventional device', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated(conventional);
  const assigned = await fixture.assign(fixture.spy(device));
  const before = device.config.read(0n, 256);
  for (const size of SIZES) {
    for (const offset of [0x100, 0x101, 0x102, 0x7ff, 0xffc, 0xfff]) {
      t.is(assigned.configRead(offset, size), 2 ** (8 * size) - 1, `${offset}+${size}`);
      await assigned.configWrite(offset, size, 0);
    }
  }
  t.deepEqual(fixture.drainLog(), []);
  t.deepEqual(device.config.read(0n, 256), before);
});

test('reads the bytes before the end of config space, and all ones past it', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign(fixture.simulated(conventional));
  t.is(assigned.configRead(0xfe, 4), 0xffff_0000);
  t.is(assigned.configRead(0xff, 2), 0xff00);
  await assigned.configWrite(0xfe, 4, 0x1234_5678);
  const express = await fixture.assign();
  t.is(express.configRead(0xffd, 4), 0xff00_0000);
});

test('reads the same bytes as single-byte reads, at any offset and across dwords', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign();
  await writeBar32(assigned, 0, LOW);
  await writeBar64(assigned, 2, HIGH + MiB);
  const bytes = Array.from({ length: 4096 }, (_, offset) => assigned.configRead(offset, 1));
  for (const size of SIZES) {
    for (let offset = 0; offset < 4096; offset++) {
      const wanted = Array.from({ length: size }, (_, index) => bytes[offset + index] ?? 0xff);
      const value = wanted.reduceRight((sum, byte) => sum * 256 + byte, 0);
      if (assigned.configRead(offset, size) !== value) t.fail(`${offset}+${size}`);
    }
  }
  t.pass();
});

test('changes the same bytes as single-byte writes in an unaligned write', async (t) => {
  const fixture = await Fixture.create(t);
  const [whole, byByte] = [await fixture.assign(), await fixture.assign()];
  const config = (device: AssignedDevice): number[] =>
    Array.from({ length: 64 }, (_, index) => device.configRead(4 * index, 4));
  for (const [offset, size, value] of [
    [0x13, 4, 0x9911_22e0],
    [0x1b, 2, 0x40e0],
    [0x05, 2, 0x0004],
    [0x3b, 2, 0x0b00],
    [0x0d, 4, 0xffff_ffff],
    [0x03, 2, 0x0200],
  ] as const) {
    await whole.configWrite(offset, size, value);
    for (let index = 0; index < size; index++) {
      await byByte.configWrite(offset + index, 1, Math.floor(value / 256 ** index) % 256);
    }
    t.deepEqual(config(whole), config(byByte), `${offset}+${size}`);
  }
});

test('enables a BAR by an unaligned write across Command and Status', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  await writeBar64(assigned, 2, HIGH);
  await assigned.configWrite(0x03, 2, MEMORY << 8);
  t.true(fixture.reaches(HIGH, device, 2));
  await assigned.configWrite(0x03, 4, 0);
  t.false(fixture.reaches(HIGH, device, 2));
  t.is(readBar64(assigned, 2), HIGH);
});

test('rejects accesses that no guest can make', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign(fixture.simulated(conventional));
  for (const [offset, size, code] of [
    [0, 3, 'ERR_INVALID_ARGUMENT'],
    [0, 8, 'ERR_INVALID_ARGUMENT'],
    [0, 0, 'ERR_INVALID_ARGUMENT'],
    [-1, 1, 'ERR_INVALID_ARGUMENT'],
    [0.5, 1, 'ERR_INVALID_ARGUMENT'],
    ['0' as unknown as number, 1, 'ERR_INVALID_ARGUMENT'],
    [0n as unknown as number, 4, 'ERR_INVALID_ARGUMENT'],
    [0x1000, 1, 'ERR_OUT_OF_RANGE'],
  ] as const) {
    throwsCode(t, () => assigned.configRead(offset, size), code, `${offset}+${size}`);
    await rejectsCode(t, assigned.configWrite(offset, size, 0), code, `${offset}+${size}`);
  }
  for (const [gpa, length] of [
    [-1n, 4],
    [Number(LOW) as unknown as bigint, 4],
    [LOW, -1],
    [LOW, 1.5],
  ] as const) {
    throwsCode(t, () => assigned.mmioRead(gpa, length), 'ERR_INVALID_ARGUMENT', `${gpa}+${length}`);
  }
  throwsCode(t, () => assigned.mmioWrite(LOW, 'ab' as unknown as Uint8Array), 'ERR_INVALID_ARGUMENT');
});

test('mmioRead and mmioWrite reject more than 4096 bytes before memory is allocated for them', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign();
  const before = process.memoryUsage();
  for (const length of [4097, 2 ** 32, 2 ** 33, Number.MAX_SAFE_INTEGER]) {
    throwsCode(t, () => assigned.mmioRead(LOW, length), 'ERR_OUT_OF_RANGE', `${length}`);
  }
  t.true(process.memoryUsage().arrayBuffers < before.arrayBuffers + 2 ** 20);
  throwsCode(t, () => assigned.mmioWrite(LOW, new Uint8Array(4097)), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => assigned.mmioRead(2n ** 64n - 4n, 8), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => assigned.mmioRead(LOW, 0), 'ERR_EMPTY_RANGE');
  t.deepEqual(assigned.mmioRead(LOW, 4096), ones(4096));
  assigned.mmioWrite(LOW, new Uint8Array(4096));
});

test('reads all ones from a simulated BAR whose file was truncated', async (t) => {
  const fixture = await Fixture.create(t);
  const fd = temporaryFile(t, 0x1000);
  using contents = MemoryFile.fromFd(fd);
  const bars = [{ index: 0, length: 0x1000n, contents, mmapAreas: [] }];
  const assigned = await fixture.assign(fixture.simulated({ bars, msix: undefined } as never));
  await writeBar32(assigned, 0, LOW);
  await command(assigned, MEMORY);
  t.deepEqual(assigned.mmioRead(LOW, 4), new Uint8Array(4));
  ftruncateSync(fd, 0);
  const faults = faultsOf(t);
  for (const length of [1, 4, 8]) {
    t.deepEqual(assigned.mmioRead(LOW, length), ones(length));
    assigned.mmioWrite(LOW, new Uint8Array(length));
  }
  t.deepEqual(
    faults.map(({ error }) => error.code),
    Array.from({ length: 6 }, () => 'ERR_OUT_OF_RANGE'),
  );
});

test('reads all ones and drops writes where no BAR decodes', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  const faults = faultsOf(t);
  const dead = (gpa: bigint, what: string): void => {
    for (const length of [1, 2, 3, 4, 8, 11]) t.deepEqual(assigned.mmioRead(gpa, length), ones(length), what);
    assigned.mmioWrite(gpa, new Uint8Array(8));
  };
  dead(LOW, 'not placed');
  await writeBar32(assigned, 0, LOW);
  dead(LOW, 'placed, decode off');
  await command(assigned, MEMORY);
  const bytes = Uint8Array.of(1, 2, 3, 4);
  assigned.mmioWrite(LOW, bytes);
  t.deepEqual(assigned.mmioRead(LOW, 4), bytes);
  dead(LOW + 0x1_0000n, 'behind it');
  dead(LOW - 16n, 'before it');
  await command(assigned, 0);
  dead(LOW, 'decode off again');
  t.deepEqual(device.regions[0]?.mmapAreas.length, 1);
  await command(assigned, MEMORY);
  t.deepEqual(assigned.mmioRead(LOW, 4), bytes, 'nothing of it was written');
  t.deepEqual(faults, [], 'the device was not asked');
});

test('accesses the part within a BAR in an access across its end', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign();
  await writeBar32(assigned, 0, LOW);
  await command(assigned, MEMORY);
  const end = LOW + 0x1_0000n;
  assigned.mmioWrite(end - 2n, Uint8Array.of(1, 2, 3, 4));
  t.deepEqual(assigned.mmioRead(end - 3n, 6), Uint8Array.of(0, 1, 2, 0xff, 0xff, 0xff));
  assigned.mmioWrite(LOW - 2n, Uint8Array.of(9, 9, 5, 6));
  t.deepEqual(assigned.mmioRead(LOW - 2n, 5), Uint8Array.of(0xff, 0xff, 5, 6, 0));
});

test('reads all ones from a device that does not respond, drops writes, and publishes faults', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  await writeBar32(assigned, 0, LOW);
  await command(assigned, MEMORY);
  const faults = faultsOf(t);
  device.config.write(4n, Uint8Array.of(0, 0)); // by another hand
  t.deepEqual(assigned.mmioRead(LOW, 4), ones(4));
  t.deepEqual(assigned.mmioRead(LOW + 8n, 8), ones(8));
  assigned.mmioWrite(LOW, new Uint8Array(4));
  const { read } = device.config;
  device.config.read = () => {
    throw new PeerDmaError('ERR_SYSTEM', 'EIO', { errno: 'EIO' });
  };
  t.is(assigned.configRead(0, 4), 0xffff_ffff);
  device.config.read = read;
  t.is(assigned.configRead(0, 2), 0x1234);
  t.true(faults.every(({ memory }) => memory === fixture.memory.id));
  t.deepEqual(
    faults.map(({ bdf, access, bar, offset, length, error }) => [bdf, access, bar, offset, length, error.code]),
    [
      [device.bdf, 'BAR read', 0, 0n, 4, 'ERR_BAR_DISABLED'],
      [device.bdf, 'BAR read', 0, 8n, 8, 'ERR_BAR_DISABLED'],
      [device.bdf, 'BAR write', 0, 0n, 4, 'ERR_BAR_DISABLED'],
      [device.bdf, 'config read', undefined, 0n, 4, 'ERR_SYSTEM'],
    ],
  );
});

test('drops config writes to a device that does not respond, and unmaps its BARs', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  await writeBar32(assigned, 0, LOW);
  await command(assigned, MEMORY);
  const faults = faultsOf(t);
  const { read, write } = device.config;
  device.config.read = device.config.write = () => {
    throw new PeerDmaError('ERR_SYSTEM', 'EIO', { errno: 'EIO' });
  };
  await assigned.configWrite(0x3c, 1, 5);
  t.is(assigned.status()[0]?.range, undefined, 'nothing of it decodes');
  for (const [offset, size, value] of [
    [4, 2, 0],
    [4, 2, MEMORY],
    [0x10, 4, 0xffff_ffff],
    [0x10, 4, LOW + MiB],
    [0x100, 4, 1],
    [0, 4, 0],
  ] as const) {
    await assigned.configWrite(offset, size, Number(value));
  }
  t.deepEqual(
    faults.map(({ access, bar, offset, length, error }) => [access, bar, offset, length, error.code]),
    [
      [0x3cn, 1],
      [4n, 2],
      [4n, 2],
      [0x10n, 4],
      [0x10n, 4],
      [0x100n, 4],
      [0n, 4],
    ].map(([offset, length]) => ['config write', undefined, offset, length, 'ERR_SYSTEM']),
  );
  Object.assign(device.config, { read, write });
  t.is(assigned.configRead(0x3c, 1), 5, 'what is emulated has taken the write');
  t.is(assigned.configRead(0x10, 4), Number(LOW + MiB));
  await command(assigned, MEMORY);
  t.is(assigned.status()[0]?.range?.start, LOW + MiB);
});

test('rejects a config read whose device does not return the requested bytes', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  await writeBar32(assigned, 0, LOW);
  await command(assigned, MEMORY);
  const { read } = device.config;
  for (const returned of [new Uint8Array(1), new Uint8Array(8), [0, 0, 0, 0], undefined]) {
    device.config.read = () => returned as Uint8Array;
    throwsCode(t, () => assigned.configRead(0, 4), 'ERR_INVALID_ARGUMENT');
    await rejectsCode(t, assigned.configWrite(0x10, 4, Number(LOW + MiB)), 'ERR_INVALID_ARGUMENT');
    // Of Command, which is read before and after the device has got the write.
    for (let wrong = 0; wrong < 2; wrong++) {
      let left = wrong;
      device.config.read = (at, length) =>
        at === 4n && left-- === 0 ? (returned as Uint8Array) : read.call(device.config, at, length);
      await rejectsCode(t, assigned.configWrite(6, 2, 0), 'ERR_INVALID_ARGUMENT');
    }
    t.is(assigned.status()[0]?.range?.start, LOW);
  }
  device.config.read = read;
});

test('configWrite rejects when the kernel refuses the write', async (t) => {
  const fixture = await Fixture.create(t);
  const spy = fixture.spy(fixture.simulated());
  const assigned = await fixture.assign(spy);
  let refusals = 1;
  spy.failWith = () => (refusals-- > 0 ? new PeerDmaError('ERR_SYSTEM', 'EIO', { errno: 'EIO' }) : undefined);
  await rejectsCode(t, command(assigned, MEMORY), 'ERR_SYSTEM');
  t.is(assigned.configRead(4, 2), 0);
});

test('rejects accesses to a closed device', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign();
  await assigned.close();
  throwsCode(t, () => assigned.configRead(0x100, 4), 'ERR_CLOSED');
  throwsCode(t, () => assigned.mmioRead(LOW, 4), 'ERR_CLOSED');
  await rejectsCode(t, assigned.configWrite(0x100, 4, 0), 'ERR_CLOSED');
});
