// Random reads, writes and device changes, compared with an independent model.
import test from 'ava';
import fc from 'fast-check';
import { seedOf } from '../../support/seed.ts';
import { Model, type ModelShape } from './model.ts';
import { PlainDevice } from './plain-device.ts';

type Name = ConstructorParameters<typeof PlainDevice>[0] & string;

const PROGRAMS = 300;

const nic = {
  bars: [
    { index: 0, register: 0x10, bits: 64, prefetchable: true, length: 0x800000n },
    { index: 2, register: 0x18, bits: 32, length: 0x8000n },
    { index: 3, register: 0x1c, bits: 32, prefetchable: true, length: 0x10n },
    { index: 4, register: 0x20, bits: 32, length: 0x10000n },
  ],
  power: { offset: 0x40, states: [1, 2], header: 0x5001 },
  firstCapability: 0x40,
  pin: 2,
  plain: [0x48, 0xf4, 0x104, 0x200],
} as const satisfies ModelShape;

const gpu = {
  bars: [
    { index: 0, register: 0x10, bits: 32, length: 0x1000000n },
    { index: 1, register: 0x14, bits: 64, prefetchable: true, length: 0x800000000n },
    { index: 3, register: 0x1c, bits: 64, prefetchable: true, length: 0x2000000n },
    { index: 6, register: 0x30, bits: 32, length: 0x80000n },
  ],
  power: { offset: 0x60, states: [], header: 0x6801 },
  firstCapability: 0x60,
  pin: 1,
  plain: [0x40, 0x84, 0x254],
} as const satisfies ModelShape;

const scenes: Readonly<Record<string, readonly [name: Name, shape: ModelShape]>> = {
  'an edu': [
    'edu',
    {
      bars: [{ index: 0, register: 0x10, bits: 32, length: 0x100000n }],
      firstCapability: 0x40,
      pin: 1,
      plain: [0x50, 0xfc],
    },
  ],
  'an nvme': [
    'nvme',
    {
      bars: [
        { index: 0, register: 0x10, bits: 64, length: 0x4000n },
        { index: 2, register: 0x18, bits: 64, prefetchable: true, length: 0x400000n },
      ],
      power: { offset: 0x60, states: [], header: 0x0001 },
      firstCapability: 0x40,
      pin: 1,
      plain: [0x84, 0x88, 0x104],
    },
  ],
  'an igb': [
    'igb',
    {
      bars: [
        { index: 0, register: 0x10, bits: 32, length: 0x20000n },
        { index: 1, register: 0x14, bits: 32, length: 0x20000n },
        { index: 3, register: 0x1c, bits: 64, length: 0x4000n },
      ],
      power: { offset: 0x40, states: [], header: 0x5001 },
      firstCapability: 0x40,
      pin: 1,
      plain: [0x48, 0xa8, 0x108],
    },
  ],
  'a network function': ['written-nic', nic],
  'a network function with pinned BARs': [
    'written-nic',
    {
      ...nic,
      bars: [
        { ...nic.bars[0], pinned: 0x3812000000n },
        nic.bars[1],
        { ...nic.bars[2], pinned: 0xfffffff0n },
        nic.bars[3],
      ],
    },
  ],
  'a graphics function': ['written-gpu', gpu],
  'a graphics function with a pinned BAR': [
    'written-gpu',
    { ...gpu, bars: [gpu.bars[0], { ...gpu.bars[1], pinned: 0x4000000000n }, gpu.bars[2], gpu.bars[3]] },
  ],
  'a conventional function': [
    'written-conventional',
    {
      bars: [
        { index: 0, register: 0x10, bits: 32, length: 0x1000n },
        { index: 4, register: 0x20, bits: 32, length: 0x200n },
      ],
      power: { offset: 0x90, states: [1], header: 0x0001 },
      firstCapability: 0xd0,
      pin: 4,
      plain: [0x88, 0xf0],
    },
  ],
};

interface Write {
  readonly kind: 'write';
  readonly offset: number;
  readonly size: number;
  readonly value: number;
}
interface Registers {
  readonly kind: 'registers';
  readonly command: number;
  readonly power: number;
}

function steps({ power }: ModelShape, registers: readonly number[]): fc.Arbitrary<(Write | Registers)[]> {
  const deciding = [0x04, ...(power === undefined ? [] : [power.offset + 4])];
  const value = fc.oneof(
    fc.nat(0xffffffff),
    fc.constantFrom(0, 1, 2, 3, 6, 0xffffffff, 0xfffffff0, 0xfffff800, 0xffff, 0xff, 0x80000000),
    fc.nat(0xfff).map((high) => high * 0x100000),
    fc.nat(0xff),
  );
  const register = fc.oneof(
    fc.constantFrom(...registers),
    fc.constantFrom(0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30),
    fc.constantFrom(...deciding),
  );
  const write = fc
    .tuple(register, fc.constantFrom(1, 2, 4, 4, 4), fc.nat(3), value)
    .map(([first, size, lane, wide]): Write => {
      const offset = first + (lane - (lane % size));
      return { kind: 'write', offset, size, value: Number(BigInt.asUintN(8 * size, BigInt(wide))) };
    });
  // Powered up with decode on, more often than by chance.
  const on = fc.constant<Registers>({ kind: 'registers', command: 0x0006, power: 0 });
  const changed = fc
    .tuple(fc.oneof(fc.nat(0xffff), fc.constantFrom(0, 2, 0xffff)), fc.nat(3))
    .map(([command, state]): Registers => ({ kind: 'registers', command, power: state }));
  const step = fc.oneof(
    { weight: 30, arbitrary: write },
    { weight: 2, arbitrary: on },
    { weight: 1, arbitrary: changed },
  );
  return fc.array<Write | Registers>(step, { maxLength: 40, size: 'max' });
}

function equal(what: string, actual: unknown, expected: unknown): void {
  const say = (value: unknown): string =>
    JSON.stringify(value, (_key, item: unknown) => (typeof item === 'bigint' ? `0x${item.toString(16)}` : item));
  if (say(actual) !== say(expected)) throw new Error(`${what}: ${say(actual)}, and in the model ${say(expected)}`);
}

for (const [title, [name, shape]] of Object.entries(scenes)) {
  test(`matches the model of config space: ${title}`, (t) => {
    const pinned = new Map<number, bigint>();
    for (const { index, pinned: place } of shape.bars) if (place !== undefined) pinned.set(index, place);
    const registers = new Model(shape, new Uint8Array(4096)).registers;
    const counts = { steps: 0, decoding: 0 };

    const property = fc.property(steps(shape, registers), (program) => {
      const device = new PlainDevice(name, { pinned });
      const model = new Model(shape, device.bytes);
      for (const step of program) {
        if (step.kind === 'write') {
          device.write(step.offset, step.size, step.value);
          model.write(step.offset, step.size, step.value);
        } else {
          device.bytes.set([step.command & 0xff, step.command >> 8], 0x04);
          const at = shape.power && shape.power.offset + 4;
          if (at !== undefined) device.bytes[at] = ((device.bytes[at] ?? 0) & ~3) | step.power;
          device.readDecodeRegisters();
          model.setDecodeRegisters(step.command, step.power);
        }
        const view = new DataView(device.bytes.buffer);
        for (const register of registers) {
          equal(`register ${register.toString(16)}`, device.read(register, 4), model.read(register, 4));
          const told = BigInt(view.getUint32(register, true));
          equal(`register ${register.toString(16)} of the device`, told, model.device.get(register));
        }
        for (let offset = 0; offset < 0x40; offset++) {
          equal(`byte ${offset.toString(16)}`, device.read(offset, 1), model.read(offset, 1));
          if (offset % 2 === 0) equal(`word ${offset.toString(16)}`, device.read(offset, 2), model.read(offset, 2));
        }
        equal('decoded', device.decoded, model.decoded());
        counts.steps += 1;
        if (Object.keys(model.decoded()).length > 0) counts.decoding += 1;
      }
    });
    fc.assert(property, { seed: seedOf(t), numRuns: PROGRAMS, includeErrorInReport: true });
    t.log(counts);
    t.true(counts.steps > PROGRAMS * 10 && counts.decoding > PROGRAMS, 'BARs decoded in many of the steps');
  });
}
