/**
 * A guest that writes its devices' config space at random.
 *
 * After each write, DMA reaches at every address exactly what a straightforward model of PCI predicts.
 */
import test from 'ava';
import fc from 'fast-check';
import { type AssignedDevice, MemoryFile, resetDevices } from '../../ts/index.ts';
import type { SimulatedDevice } from '../../ts/testing.ts';
import { seedOf } from '../support/seed.ts';
import { MASTER, MEMORY, barRegister, capability } from './support/guest.ts';
import { MiB, RAM, RAM_LENGTH, Fixture } from './support/fixture.ts';

/** BAR 0 of 64 KiB and 32 bits, with an MSI-X table in its third page; BAR 2 of 1 MiB and 64 bits. */
const BARS = [
  { index: 0, length: 0x1_0000n, kind: 'memory32' },
  { index: 2, length: MiB, kind: 'memory64' },
] as const;
const DEVICES = 2;
const SLEEPS = [0, 3] as const;

/** Places for the lower halves of addresses: RAM's, the interrupts', neighbours, all ones. */
const LOW = [
  0, 0x10_0000, 0x20_8000, 0xe000_0000, 0xe001_0000, 0xe008_0000, 0xe010_0000, 0xfee0_0000, 0xfff0_0000, 0xffff_ffff,
] as const;
const HIGH = [0, 0, 0, 0x40, 0x100, 0xffff_ffff] as const;

type Op =
  | { readonly op: 'bar'; readonly device: number; readonly register: 0 | 2 | 3; readonly value: number }
  | { readonly op: 'byte'; readonly device: number; readonly at: number; readonly value: number }
  | { readonly op: 'command'; readonly device: number; readonly value: number }
  | { readonly op: 'power'; readonly device: number; readonly value: (typeof SLEEPS)[number] }
  | { readonly op: 'flr' | 'reset'; readonly device: number }
  | { readonly op: 'reset all' };

const device = fc.integer({ min: 0, max: DEVICES - 1 });
const operation: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constant('bar' as const),
      device,
      register: fc.constantFrom(0 as const, 2 as const),
      value: fc.constantFrom(...LOW),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constant('bar' as const),
      device,
      register: fc.constant(3 as const),
      value: fc.constantFrom(...HIGH),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('byte' as const),
      device,
      at: fc.integer({ min: 0x10, max: 0x1f }),
      value: fc.integer({ min: 0, max: 255 }),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      op: fc.constant('command' as const),
      device,
      value: fc.constantFrom(0, MEMORY, MEMORY, MEMORY | MASTER, MASTER),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constant('power' as const), device, value: fc.constantFrom(...SLEEPS) }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constantFrom('flr' as const, 'reset' as const), device }) },
  { weight: 1, arbitrary: fc.constant({ op: 'reset all' as const }) },
);

/** A device as the PCI specification has it, without a thought for how it is done. */
class PlainDevice {
  /** Bytes 0x10 to 0x1f: BAR 0, nothing, BAR 2 in two registers. */
  registers = new Uint8Array(16);
  memory = false;
  power = 0;

  /** Returns the guest's value of a 4-byte register. */
  read(register: number): number {
    const [wide0, wide2] = BARS;
    const view = new DataView(this.registers.buffer);
    const value = view.getUint32(4 * register, true);
    if (register === 0) return (value & Number(-wide0.length & 0xffff_ffffn)) >>> 0;
    if (register === 2) return ((value & Number(-wide2.length & 0xffff_ffffn)) | 0x4) >>> 0;
    return register === 3 ? value : 0;
  }

  address(bar: 0 | 2): bigint | undefined {
    if (!this.memory || this.power !== 0) return undefined;
    const low = BigInt(this.read(bar)) & ~0xfn;
    // All ones in a half, except in the four non-address bits, request the size: a 64-bit BAR does not decode then.
    const written = new DataView(this.registers.buffer).getUint32(4 * bar, true);
    if (bar === 2 && (written >= 0xffff_fff0 || this.read(3) === 0xffff_ffff)) return undefined;
    const address = bar === 0 ? low : low | (BigInt(this.read(3)) << 32n);
    const { length } = BARS[bar / 2] as (typeof BARS)[number];
    const end = bar === 0 ? 1n << 32n : 1n << 64n;
    return address === 0n || address + length === end ? undefined : address;
  }
}

const WIDTH = 40n;
const RESERVED = { start: 0xfee0_0000n, end: 0xfef0_0000n };

/** Returns the target of DMA to an address: `device.bar` and the page in it, `ram`, or nothing. */
function expected(plain: readonly PlainDevice[], gpa: bigint): string {
  if (gpa >= RAM && gpa < RAM + RAM_LENGTH) return 'ram';
  if (gpa >= RESERVED.start && gpa < RESERVED.end) return 'nothing';
  for (const [index, one] of plain.entries()) {
    for (const { index: bar, length } of BARS) {
      const start = one.address(bar);
      if (start === undefined || gpa < start || gpa >= start + length || start + length > 1n << WIDTH) continue;
      const page = (gpa - start) >> 12n;
      if (bar === 0 && page === 2n) return 'nothing'; // the window has that address, and shows nothing there
      return `${index}.${bar} page ${page}`;
    }
  }
  return 'nothing';
}

test('reaches by DMA what the guest has placed, at random addresses', async (t) => {
  t.timeout(300_000);
  const files: MemoryFile[] = [];
  t.teardown(() => {
    for (const file of files) file.close();
  });
  const contents = Array.from({ length: DEVICES }, (_, index) =>
    BARS.map(({ index: bar, length }) => {
      const file = MemoryFile.create(length, { name: `contents ${index}.${bar}` });
      for (let page = 0n; page < length >> 12n; page++) file.write(page << 12n, tag(index, bar, Number(page)));
      files.push(file);
      return file;
    }),
  );
  let [writes, probes] = [0, 0];
  const property = fc.asyncProperty(fc.array(operation, { minLength: 5, maxLength: 40 }), async (operations) => {
    const ends: (() => void | Promise<void>)[] = [];
    const fixture = await Fixture.create({ teardown: (last) => ends.push(last) });
    try {
      fixture.memory.write(RAM, new Uint8Array(8));
      const assigned: AssignedDevice[] = [];
      const simulated: SimulatedDevice[] = [];
      for (let index = 0; index < DEVICES; index++) {
        const bars = BARS.map((bar, at) => ({ ...bar, contents: contents[index]?.[at] as MemoryFile }));
        const one = fixture.simulated({
          bars,
          msix: { vectors: 4, bar: 0, tableOffset: 0x2000n, pendingOffset: 0x2800n },
        });
        simulated.push(one);
        assigned.push(await fixture.assign(one));
      }
      const plain = assigned.map(() => new PlainDevice());
      for (const op of operations) {
        await apply(op, assigned, plain);
        writes++;
        const voids = fixture.revokedMappings();
        if (voids.length > 0) throw new Error(`void are ${voids.join('; ')}`);
        for (const [index, one] of assigned.entries()) {
          for (const register of [0, 1, 2, 3]) {
            const [found, wanted] = [one.configRead(barRegister(register), 4), plain[index]?.read(register)];
            if (found !== wanted) throw new Error(`${index}: register ${register} reads ${found}, not ${wanted}`);
          }
        }
        for (const gpa of places(plain)) {
          probes++;
          const [found, wanted] = [find(fixture, gpa), expected(plain, gpa)];
          if (found !== wanted) throw new Error(`at 0x${gpa.toString(16)} is ${found}, not ${wanted}`);
        }
      }
    } finally {
      for (const last of ends.toReversed()) await last();
    }
  });
  await fc.assert(property, { seed: seedOf(t), numRuns: 200 });
  t.log(`${writes} writes, ${probes} probes`);
  t.true(writes > 2000);
});

async function apply(op: Op, assigned: readonly AssignedDevice[], plain: readonly PlainDevice[]): Promise<void> {
  if (op.op === 'reset all') {
    await resetDevices(assigned);
    for (const one of plain) Object.assign(one, new PlainDevice());
    return;
  }
  const [one, model] = [assigned[op.device], plain[op.device]];
  if (one === undefined || model === undefined) throw new Error('no such device');
  const view = new DataView(model.registers.buffer);
  switch (op.op) {
    case 'bar':
      view.setUint32(4 * op.register, op.value, true);
      return one.configWrite(barRegister(op.register), 4, op.value);
    case 'byte':
      view.setUint8(op.at - 0x10, op.value);
      return one.configWrite(op.at, 1, op.value);
    case 'command':
      model.memory = (op.value & MEMORY) !== 0;
      return one.configWrite(0x04, 2, op.value);
    case 'power':
      model.power = op.value;
      return one.configWrite(capability(one, 0x01) + 4, 2, op.value);
    case 'flr':
      // VFIO restores its config space; a function is in D0 after a reset.
      model.power = 0;
      return one.configWrite(capability(one, 0x10) + 8, 2, 0x8000);
    case 'reset':
      Object.assign(model, new PlainDevice());
      return one.reset();
  }
}

/** The edges of all BARs, inside and outside, and some places where nothing should be. */
function places(plain: readonly PlainDevice[]): Set<bigint> {
  const found = new Set([RAM, RAM + RAM_LENGTH, 0xe000_0000n, 0xe001_0000n, 0xfee0_0000n, 0x40_e000_0000n]);
  for (const one of plain) {
    for (const { index, length } of BARS) {
      const start = one.address(index);
      if (start === undefined) continue;
      for (const offset of [-0x1000n, 0n, 0x2000n, 0x3000n, length - 0x1000n, length]) {
        const gpa = start + offset;
        if (gpa >= 0n && gpa < 1n << 48n) found.add(gpa);
      }
    }
  }
  return found;
}

function find(fixture: Fixture, gpa: bigint): string {
  const bytes = fixture.find(gpa, 4);
  if (bytes === undefined) return 'nothing';
  const [mark, index, bar, page] = bytes;
  return mark === MARK ? `${index}.${bar} page ${page}` : 'ram';
}

const MARK = 0xa7;

function tag(index: number, bar: number, page: number): Uint8Array {
  return Uint8Array.of(MARK, index, bar, page);
}
