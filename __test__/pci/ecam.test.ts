/** Guest accesses to config space by ECAM: any length, split into valid accesses, never an error. */
import test from 'ava';
import type { AssignedDevice } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { COMMAND, MEMORY, barRegister, readBar64, writeBar32, writeBar64 } from './support/guest.ts';
import { MiB, Fixture } from './support/fixture.ts';

const LOW = 0xe000_0000n;
const HIGH = 0x40_0000_0000n;
const LENGTHS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 32, 64] as const;

const conventional = { pcie: undefined } as never;

function le64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes;
}

/** Returns the result of single-byte reads of config space, with all ones past its end. */
function byBytes(device: AssignedDevice, offset: number, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, at) => (offset + at < 4096 ? device.configRead(offset + at, 1) : 0xff));
}

test('ecamRead returns the same bytes as single-byte reads, and all ones past offset 4095', async (t) => {
  const fixture = await Fixture.create(t);
  for (const assigned of [await fixture.assign(), await fixture.assign(fixture.simulated(conventional))]) {
    await writeBar32(assigned, 0, LOW);
    await writeBar64(assigned, 2, HIGH);
    for (const length of LENGTHS) {
      for (const offset of [0, 1, 2, 3, 4, 7, 0x10, 0x18, 0x1b, 0x3d, 0xfc, 0xff, 0x100, 0xff8, 0xffb, 0xffc, 0xfff]) {
        t.deepEqual(assigned.ecamRead(offset, length), byBytes(assigned, offset, length), `${offset}+${length}`);
      }
    }
    t.deepEqual(assigned.ecamRead(0, 4096), byBytes(assigned, 0, 4096));
  }
});

test('ecamRead makes aligned accesses of up to 4 bytes', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  const made: string[] = [];
  const { read } = device.config;
  device.config.read = (offset, length) => {
    made.push(`${offset}+${length}`);
    return read.call(device.config, offset, length);
  };
  assigned.ecamRead(0x40, 8);
  assigned.ecamRead(0x43, 7);
  t.deepEqual(made, ['64+4', '68+4', '67+1', '68+4', '72+2']);
});

test('ecamWrite of 8 bytes places a 64-bit BAR and enables memory decode', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  await assigned.ecamWrite(barRegister(2), le64(HIGH));
  t.is(readBar64(assigned, 2), HIGH);
  await assigned.ecamWrite(0, le64(BigInt(MEMORY) << 32n));
  t.true(fixture.reaches(HIGH, device, 2));
  await assigned.ecamWrite(barRegister(2), le64(HIGH + 256n * MiB));
  t.false(fixture.reaches(HIGH, device, 2));
  t.true(fixture.reaches(HIGH + 256n * MiB, device, 2));
});

test('ecamWrite changes the same bytes as single-byte writes, and drops bytes past the end', async (t) => {
  const fixture = await Fixture.create(t);
  for (const options of [undefined, conventional]) {
    const [whole, byByte] = [
      await fixture.assign(fixture.simulated(options)),
      await fixture.assign(fixture.simulated(options)),
    ];
    for (const length of LENGTHS) {
      for (const offset of [0x0d, 0x10, 0x13, 0x18, 0x38, 0x3c, 0xf9, 0xff, 0x100, 0xff9, 0xfff]) {
        const bytes = Uint8Array.from({ length }, (_, at) => 0x35 * (at + length) + offset);
        await whole.ecamWrite(offset, bytes);
        for (const [at, byte] of bytes.entries()) {
          if (offset + at < 4096) await byByte.configWrite(offset + at, 1, byte);
        }
        t.deepEqual(whole.ecamRead(0, 4096), byByte.ecamRead(0, 4096), `${offset}+${length}`);
      }
    }
  }
});

test('ecamWrite copies its bytes at the call, and is not interleaved with other writes', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign();
  const bytes = le64(HIGH);
  const writes = [assigned.ecamWrite(barRegister(2), bytes), assigned.configWrite(barRegister(2) + 4, 4, 0x41)];
  bytes.fill(0xee);
  await Promise.all(writes);
  t.is(readBar64(assigned, 2), 0x41_0000_0000n);
});

test('rejects an ECAM access that no guest can make', async (t) => {
  const fixture = await Fixture.create(t);
  const assigned = await fixture.assign();
  for (const [offset, length, code] of [
    [0, 0, 'ERR_EMPTY_RANGE'],
    [0, 4097, 'ERR_OUT_OF_RANGE'],
    [0, 2 ** 40, 'ERR_OUT_OF_RANGE'],
    [0, -1, 'ERR_INVALID_ARGUMENT'],
    [0, 1.5, 'ERR_INVALID_ARGUMENT'],
    [-1, 8, 'ERR_INVALID_ARGUMENT'],
    [0.5, 8, 'ERR_INVALID_ARGUMENT'],
    [0x1000, 8, 'ERR_OUT_OF_RANGE'],
  ] as const) {
    throwsCode(t, () => assigned.ecamRead(offset, length), code, `${offset}+${length}`);
    if (length < 0 || length > 5000 || length % 1 !== 0) continue;
    await rejectsCode(t, assigned.ecamWrite(offset, new Uint8Array(length)), code, `${offset}+${length}`);
  }
  await assigned.close();
  throwsCode(t, () => assigned.ecamRead(COMMAND, 8), 'ERR_CLOSED');
  await rejectsCode(t, assigned.ecamWrite(COMMAND, new Uint8Array(8)), 'ERR_CLOSED');
});
