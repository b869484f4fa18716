/** Accesses to BARs by their guest addresses, which follow config writes, resets and removals. */
import test, { type ExecutionContext } from 'ava';
import { type AssignedDevice, PciHostBridge, resetDevices } from '../../../ts/index.ts';
import { Fixture, MiB } from '../support/fixture.ts';
import { capability } from '../support/guest.ts';
import {
  type ConfigSpaces,
  ECAM,
  GiB,
  HIGH,
  LOW,
  byEcam,
  byPorts,
  bytesOf,
  ecamAddress,
  numberFrom,
  ones,
  place32,
  place64,
} from './support/guest.ts';
import { RegisterFunction } from './support/register-function.ts';

const [ONE, TWO] = ['00:01.0', '00:02.0'];
const PLACE = LOW.start;
const OTHER = LOW.start + 16n * MiB;

interface Scene {
  readonly fixture: Fixture;
  readonly bridge: PciHostBridge;
  readonly config: ConfigSpaces;
  readonly one: AssignedDevice;
  readonly two: AssignedDevice;
  /** Reads 4 bytes for the guest. */
  read(gpa: bigint): Promise<number>;
  write(gpa: bigint, value: number): Promise<void>;
}

function hexText(value: number): string {
  return value.toString(16).padStart(2, '0');
}

/** A bridge with two assigned devices, whose BARs have no addresses. */
async function scene(t: ExecutionContext): Promise<Scene> {
  const fixture = await Fixture.create(t);
  const bridge = new PciHostBridge({ memory: fixture.memory, ecam: ECAM, windows: [LOW, HIGH] });
  const [one, two] = [await fixture.assign(), await fixture.assign()];
  bridge.add(ONE, one);
  bridge.add(TWO, two);
  return {
    fixture,
    bridge,
    config: byPorts(bridge),
    one,
    two,
    read: async (gpa) => numberFrom(await bridge.mmioRead(gpa, 4)),
    write: async (gpa, value) => bridge.mmioWrite(gpa, bytesOf(value, 4)),
  };
}

test('a BAR that moves has its new address, and not the old one', async (t) => {
  const { config, one, read, write } = await scene(t);
  t.is(await read(PLACE), 0xffff_ffff);
  await config.write(ONE, 0x20, 4, Number(PLACE));
  t.is(await read(PLACE), 0xffff_ffff, 'memory decode is off');
  await config.write(ONE, 0x04, 2, 2);
  await write(PLACE, 0x1234);
  t.is(numberFrom(one.mmioRead(PLACE, 4)), 0x1234);
  for (const [from, to] of [
    [PLACE, OTHER],
    [OTHER, PLACE + 0x100n],
    [PLACE + 0x100n, PLACE],
  ] as const) {
    await config.write(ONE, 0x20, 4, Number(to));
    t.is(await read(to), 0x1234);
    t.is(await read(from), 0xffff_ffff);
  }
  await config.write(ONE, 0x04, 2, 0);
  t.is(await read(PLACE), 0xffff_ffff, 'memory decode is off again');
});

test('a 64-bit BAR is found above 4 GiB, by all bits of its address', async (t) => {
  const { config, one, read } = await scene(t);
  const at = HIGH.start + 5n * GiB;
  await place64(config, ONE, 2, at);
  one.mmioWrite(at + MiB - 4n, bytesOf(0x77, 4));
  t.is(await read(at + MiB - 4n), 0x77);
  t.is(await read(at + MiB), 0xffff_ffff);
  t.is(await read(at - 4n), 0xffff_ffff);
  t.is(await read(at & 0xffff_ffffn), 0xffff_ffff);
  t.is(await read(at + (1n << 32n)), 0xffff_ffff);
});

test('two devices swap the addresses of their BARs, one over the other meanwhile', async (t) => {
  const { config, one, two, read } = await scene(t);
  await place64(config, ONE, 2, HIGH.start);
  await place64(config, TWO, 2, HIGH.start + GiB);
  one.mmioWrite(HIGH.start, bytesOf(0x1111, 4));
  two.mmioWrite(HIGH.start + GiB, bytesOf(0x2222, 4));
  await place64(config, ONE, 2, HIGH.start + GiB);
  t.is(await read(HIGH.start), 0xffff_ffff);
  t.is(await read(HIGH.start + GiB), 0x1111, 'the function that was added first has it');
  await place64(config, TWO, 2, HIGH.start);
  t.deepEqual([await read(HIGH.start), await read(HIGH.start + GiB)], [0x2222, 0x1111]);
  await place64(config, ONE, 2, HIGH.start);
  t.deepEqual([await read(HIGH.start), await read(HIGH.start + GiB)], [0x1111, 0xffff_ffff]);
  await config.write(ONE, 0x04, 2, 0);
  t.deepEqual([await read(HIGH.start), await read(HIGH.start + GiB)], [0x2222, 0xffff_ffff], 'it appears again');
});

test('trapped parts of overlapping BARs belong to the device whose BAR is mapped', async (t) => {
  const { fixture, config, one, two, read } = await scene(t);
  await place64(config, TWO, 2, HIGH.start);
  await place64(config, ONE, 2, HIGH.start);
  two.mmioWrite(HIGH.start, bytesOf(0x2222, 4));
  one.mmioWrite(HIGH.start, bytesOf(0x1111, 4));
  t.is(numberFrom(fixture.memory.read(HIGH.start, 4)), await read(HIGH.start));
});

test('a small BAR hides only its own addresses of a large one', async (t) => {
  const { config, two, read, write } = await scene(t);
  await place64(config, TWO, 2, PLACE);
  await config.write(ONE, 0x20, 4, Number(PLACE + 0x8_0000n));
  await config.write(ONE, 0x04, 2, 2);
  for (const [offset, value] of [
    [0x7_fffcn, 1],
    [0x8_0000n, 2],
    [0x8_00fcn, 3],
    [0x8_0100n, 4],
  ] as const) {
    await write(PLACE + offset, value);
    t.is(await read(PLACE + offset), value);
    t.is(numberFrom(two.mmioRead(PLACE + offset, 4)) === value, value === 1 || value === 4);
  }
});

test('an access across the ends of BARs reaches each of them, and reads ones in between', async (t) => {
  const { bridge, config } = await scene(t);
  const first = new RegisterFunction(16);
  const second = new RegisterFunction(16);
  bridge.add('00:03.0', first);
  bridge.add('00:04.0', second);
  await place32(config, '00:03.0', 0, PLACE);
  await place32(config, '00:04.0', 0, PLACE + 0x20n);
  first.registers.fill(0x11);
  second.registers.fill(0x22);
  const read = [...(await bridge.mmioRead(PLACE - 4n, 0x40))];
  const run = (length: number, byte: number): number[] => Array.from({ length }, () => byte);
  t.deepEqual(read, [...run(4, 0xff), ...run(16, 0x11), ...run(16, 0xff), ...run(16, 0x22), ...run(12, 0xff)]);
  await bridge.mmioWrite(
    PLACE + 14n,
    Uint8Array.from({ length: 22 }, (_, index) => index),
  );
  t.deepEqual(first.registers.slice(14), Uint8Array.of(0, 1));
  t.deepEqual(second.registers.slice(0, 4), Uint8Array.of(18, 19, 20, 21));
  t.is(second.registers[4], 0x22);
  await place32(config, '00:04.0', 0, PLACE + 0x10n);
  t.deepEqual([...(await bridge.mmioRead(PLACE + 12n, 8))], [...run(2, 0x11), 0, 1, 18, 19, 20, 21]);
});

test('BARs at the ends of the address space and of ECAM are reached up to there', async (t) => {
  const { bridge, config, two } = await scene(t);
  const func = new RegisterFunction(0x1000);
  bridge.add('00:03.0', func);
  await place32(config, '00:03.0', 0, ECAM.end);
  func.registers.fill(0x33);
  const across = [...(await bridge.mmioRead(ECAM.end - 2n, 4))];
  t.deepEqual(across, [0xff, 0xff, 0x33, 0x33]);
  await place32(config, '00:03.0', 0, ECAM.start - 0x1000n);
  t.deepEqual([...(await bridge.mmioRead(ECAM.start - 2n, 6))], [0x33, 0x33, 0x36, 0x1b, 0x08, 0]);
  await place32(config, '00:03.0', 0, ECAM.start);
  t.is(numberFrom(await bridge.mmioRead(ECAM.start, 4)), 0x0008_1b36, 'ECAM precedes BARs');
  t.deepEqual(await bridge.mmioRead((1n << 64n) - 4n, 4), ones(4));
  await place64(config, TWO, 2, (1n << 40n) - MiB);
  two.mmioWrite((1n << 40n) - 4n, bytesOf(5, 4));
  t.is(numberFrom(await bridge.mmioRead((1n << 40n) - 4n, 4)), 5, 'beyond the width it would be trapped');
});

test('BARs follow resets, power states and closing, which the bridge does not make', async (t) => {
  const { bridge, config, one, two, read } = await scene(t);
  await place32(config, ONE, 4, PLACE);
  await place32(config, TWO, 4, OTHER);
  t.deepEqual([await read(PLACE), await read(OTHER)], [0, 0]);
  await one.reset();
  t.deepEqual([await read(PLACE), await read(OTHER)], [0xffff_ffff, 0]);
  await place32(config, ONE, 4, PLACE);
  await resetDevices([one, two]);
  t.deepEqual([await read(PLACE), await read(OTHER)], [0xffff_ffff, 0xffff_ffff]);
  await place32(config, TWO, 4, OTHER);
  await two.configWrite(0x20, 4, Number(PLACE));
  t.deepEqual([await read(PLACE), await read(OTHER)], [0, 0xffff_ffff], 'a write of the VMM itself');
  bridge.remove(TWO);
  await two.close();
  t.deepEqual([await read(PLACE), await read(OTHER)], [0xffff_ffff, 0xffff_ffff]);
});

test('accesses to a BAR that are made during a function-level reset wait for its end', async (t) => {
  const { bridge, config, one, read, write } = await scene(t);
  await place32(config, ONE, 4, PLACE);
  await write(PLACE, 0x55);
  const control = BigInt(capability(one, 0x10) + 8);
  const reset = bridge.mmioWrite(ecamAddress(ONE) + control, Uint8Array.of(0, 0x80));
  const during = bridge.mmioRead(PLACE, 4);
  t.true(during instanceof Promise);
  t.is(numberFrom(await during), 0x55, 'its BARs are where they were');
  await reset;
  t.is(await read(PLACE), 0x55);
});

test('an access to one of many functions does not look at the others', async (t) => {
  const bridge = new PciHostBridge({ ecam: ECAM, windows: [LOW] });
  const config = byEcam(bridge);
  const functions: RegisterFunction[] = [];
  for (let number = 1; number < 256; number++) {
    const address = `00:${hexText(number >> 3)}.${number & 7}`;
    const func = new RegisterFunction();
    functions.push(func);
    bridge.add(address, func);
    await place32(config, address, 0, PLACE + BigInt(number * 0x2000));
    func.registers.fill(number);
  }
  const looks = (): number => functions.reduce((sum, func) => sum + func.looks, 0);
  const before = looks();
  for (let number = 1; number < 256; number++) {
    t.deepEqual([...(await bridge.mmioRead(PLACE + BigInt(number * 0x2000), 1))], [number]);
    t.deepEqual(await bridge.mmioRead(PLACE + BigInt(number * 0x2000 + 0x1000), 4), ones(4));
  }
  t.is(looks() - before, 255, 'each function compares the address with its own BAR, once');
  await place32(config, '00:01.0', 0, PLACE);
  t.is(looks() - before, 255 + 2, 'after each of the two config writes of the function');
});

test('a function of TypeScript reports changes of its own', async (t) => {
  const { bridge, config } = await scene(t);
  const func = new RegisterFunction();
  const callbacks = new Set<() => void>();
  const watched = Object.assign(func, {
    watchBars: (changed: () => void) => {
      callbacks.add(changed);
      changed(); // at once, too
      return { remove: () => callbacks.delete(changed) };
    },
  });
  bridge.add('00:03.0', watched as never);
  await place32(config, '00:03.0', 0, PLACE);
  t.deepEqual(await bridge.mmioRead(PLACE, 4), ones(4), 'without a report, the bridge has the old addresses');
  for (const changed of callbacks) changed();
  t.deepEqual(await bridge.mmioRead(PLACE, 4), new Uint8Array(4));
  const [changed] = callbacks;
  bridge.remove('00:03.0');
  t.is(callbacks.size, 0);
  changed?.();
  t.deepEqual(await bridge.mmioRead(PLACE, 4), ones(4), 'a late report has no effect');
  t.deepEqual(await byEcam(bridge).read('00:03.0', 0, 4), 0xffff_ffff);
});
