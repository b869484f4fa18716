/**
 * A guest that programs functions at random, through ports and ECAM.
 *
 * After each step, accesses at all interesting addresses give exactly what a straightforward model predicts, which
 * scans every BAR of every function for each byte.
 */
import test from 'ava';
import fc from 'fast-check';
import { type AssignedDevice, PciHostBridge } from '../../../ts/index.ts';
import { seedOf } from '../../support/seed.ts';
import { Fixture } from '../support/fixture.ts';
import { ECAM, byEcam, byPorts, bytesOf } from './support/guest.ts';

/** Two BARs that are trapped, since they have less than a page, and one that is mapped. */
const BARS = [
  { index: 0, length: 0x100n, kind: 'memory32' },
  { index: 2, length: 0x1000n, kind: 'memory64' },
  { index: 4, length: 0x20n, kind: 'memory32' },
] as const;
const ADDRESSES = ['00:01.0', '00:01.3', '00:02.0', '01:1f.7'] as const;

const LOW = [0, 0xe000_0000, 0xe000_0100, 0xe000_0f00, 0xe000_1000, 0xb000_0000, 0xffff_f000, 0xffff_ffff] as const;
const HIGH = [0, 0, 0x40, 0xffff_ffff] as const;
/** Begins and ends of BARs, and addresses around them. */
const OFFSETS = [-4, -1, 0, 0x1f, 0x20, 0xfc, 0xff, 0x100, 0xfff, 0x1000] as const;

type Op =
  | { readonly op: 'register'; readonly at: number; readonly register: number; readonly value: number }
  | { readonly op: 'command'; readonly at: number; readonly value: number }
  | { readonly op: 'write'; readonly gpa: bigint; readonly bytes: Uint8Array }
  | { readonly op: 'plug'; readonly at: number }
  | { readonly op: 'unplug'; readonly at: number }
  | { readonly op: 'reset'; readonly at: number };

const at = fc.nat({ max: ADDRESSES.length - 1 });
const gpa = fc
  .tuple(fc.constantFrom(...LOW), fc.constantFrom(0, 0x40), fc.constantFrom(...OFFSETS))
  .map(([low, high, offset]) => BigInt.asUintN(63, (BigInt(high) << 32n) + BigInt(low) + BigInt(offset)));
const operation: fc.Arbitrary<Op> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      op: fc.constant('register' as const),
      at,
      register: fc.constantFrom(0, 2, 4),
      value: fc.constantFrom(...LOW),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      op: fc.constant('register' as const),
      at,
      register: fc.constant(3),
      value: fc.constantFrom(...HIGH),
    }),
  },
  { weight: 4, arbitrary: fc.record({ op: fc.constant('command' as const), at, value: fc.constantFrom(2, 2, 2, 0) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      op: fc.constant('write' as const),
      gpa: gpa.filter((one) => !ECAM.contains(one) && !ECAM.contains(one + 16n)),
      bytes: fc.uint8Array({ minLength: 1, maxLength: 16 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ op: fc.constantFrom('plug' as const, 'unplug' as const, 'reset' as const), at }),
  },
);

/** A function by the PCI specification. */
class PlainFunction {
  readonly registers = new Uint32Array(6);
  readonly contents: ReadonlyMap<number, Uint8Array> = new Map(
    BARS.map(({ index, length }) => [index, new Uint8Array(Number(length))]),
  );
  memory = false;

  /** The BAR that decodes an address, and the offset in it. */
  find(address: bigint): { readonly contents: Uint8Array; readonly offset: number } | undefined {
    for (const { index, length, kind } of BARS) {
      const start = this.#address(index, length, kind === 'memory64');
      if (start === undefined || address < start || address >= start + length) continue;
      return { contents: this.contents.get(index) ?? new Uint8Array(), offset: Number(address - start) };
    }
    return undefined;
  }

  /** No BAR ends with its address space: such an address requests the size. */
  #address(index: number, length: bigint, wide: boolean): bigint | undefined {
    const [low = 0, high = 0] = this.registers.subarray(index);
    if (!this.memory || (wide && ((low & ~0xf) >>> 0 === 0xffff_fff0 || high === 0xffff_ffff))) return undefined;
    const address = (BigInt(low) | (wide ? BigInt(high) << 32n : 0n)) & -length;
    return address === 0n || address + length >= 1n << (wide ? 64n : 32n) ? undefined : address;
  }
}

/** All functions, in the order in which they were added. */
class PlainBridge {
  readonly functions = new Map<string, PlainFunction>();

  byte(address: bigint): { readonly contents: Uint8Array; readonly offset: number } | undefined {
    for (const func of this.functions.values()) {
      const found = func.find(address);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  read(start: bigint, length: number): Uint8Array {
    return Uint8Array.from({ length }, (_, index) => {
      const found = this.byte(start + BigInt(index));
      return found === undefined ? 0xff : (found.contents[found.offset] ?? 0);
    });
  }

  write(start: bigint, bytes: Uint8Array): void {
    for (const [index, byte] of bytes.entries()) {
      const found = this.byte(start + BigInt(index));
      if (found !== undefined) found.contents[found.offset] = byte;
    }
  }
}

/** A bridge with simulated devices, and its model. */
class Machine {
  readonly bridge: PciHostBridge;
  readonly #fixture: Fixture;
  readonly #model = new PlainBridge();
  readonly #devices = new Map<string, AssignedDevice>();

  constructor(fixture: Fixture) {
    this.#fixture = fixture;
    this.bridge = new PciHostBridge({ memory: fixture.memory, ecam: ECAM, windows: [] });
  }

  /** Odd steps access config space by ports, the others by ECAM. */
  async apply(op: Op, step: number): Promise<void> {
    const config = step % 2 === 0 ? byEcam(this.bridge) : byPorts(this.bridge);
    if (op.op === 'write') {
      this.#model.write(op.gpa, op.bytes);
      return this.bridge.mmioWrite(op.gpa, op.bytes);
    }
    const address = ADDRESSES[op.at] ?? '';
    const model = this.#model.functions.get(address);
    if (op.op === 'plug') return this.plug(address);
    if (op.op === 'unplug') return this.#unplug(address);
    if (op.op === 'reset') {
      model?.registers.fill(0);
      if (model !== undefined) model.memory = false;
      return this.#devices.get(address)?.reset();
    }
    if (op.op === 'command') {
      if (model !== undefined) model.memory = (op.value & 2) !== 0;
      return config.write(address, 0x04, 2, op.value);
    }
    model?.registers.set([op.value], op.register);
    return config.write(address, 0x10 + 4 * op.register, 4, op.value);
  }

  async plug(address: string): Promise<void> {
    if (this.#devices.has(address)) return;
    const device = await this.#fixture.assign(this.#fixture.simulated({ bars: BARS, msix: undefined } as never));
    this.#devices.set(address, device);
    this.bridge.add(address, device);
    this.#model.functions.set(address, new PlainFunction());
  }

  async #unplug(address: string): Promise<void> {
    this.bridge.remove(address);
    await this.#devices.get(address)?.close();
    this.#devices.delete(address);
    this.#model.functions.delete(address);
  }

  /** Compares reads at the addresses of BARs and around them. */
  async check(): Promise<number> {
    let reads = 0;
    for (const low of LOW) {
      for (const high of [0n, 0x40n << 32n]) {
        for (const offset of OFFSETS) {
          const start = BigInt.asUintN(63, high + BigInt(low) + BigInt(offset));
          if (ECAM.contains(start) || ECAM.contains(start + 8n)) continue;
          const [found, wanted] = [await this.bridge.mmioRead(start, 8), this.#model.read(start, 8)];
          if (Buffer.compare(found, wanted) !== 0) {
            throw new Error(`at 0x${start.toString(16)} is ${found.join()}, not ${wanted.join()}`);
          }
          reads++;
        }
      }
    }
    return reads;
  }
}

test('accesses reach what the guest has placed, at random addresses', async (t) => {
  t.timeout(300_000);
  let reads = 0;
  const property = fc.asyncProperty(fc.array(operation, { minLength: 10, maxLength: 40 }), async (operations) => {
    const ends: (() => void | Promise<void>)[] = [];
    const fixture = await Fixture.create({ teardown: (last) => ends.push(last) });
    try {
      const machine = new Machine(fixture);
      for (const address of ADDRESSES.slice(0, 3)) await machine.plug(address);
      for (const [step, op] of operations.entries()) {
        await machine.apply(op, step);
        reads += await machine.check();
      }
    } finally {
      for (const last of ends.toReversed()) await last();
    }
  });
  await fc.assert(property, { seed: seedOf(t), numRuns: 40 });
  t.log(`${reads} reads`);
  t.true(reads > 50_000);
});

test('accesses that are not awaited never throw, and leave what the same accesses in turn leave', async (t) => {
  t.timeout(300_000);
  const property = fc.asyncProperty(fc.array(operation, { minLength: 10, maxLength: 40 }), async (operations) => {
    const ends: (() => void | Promise<void>)[] = [];
    const fixture = await Fixture.create({ teardown: (last) => ends.push(last) });
    try {
      const machine = new Machine(fixture);
      for (const address of ADDRESSES) await machine.plug(address);
      const config = operations.filter(({ op }) => op === 'register' || op === 'command');
      const pending: unknown[] = [];
      for (const [step, op] of config.entries()) {
        pending.push(machine.apply(op, 0)); // by ECAM: two accesses to the ports must not be interleaved with others
        pending.push(machine.bridge.mmioRead(0xe000_0000n, 8), machine.bridge.mmioRead(0xe000_1000n, 4));
        pending.push(machine.bridge.mmioWrite(0x1000n, bytesOf(step, 4)));
      }
      await Promise.all(pending);
      await machine.check();
    } finally {
      for (const last of ends.toReversed()) await last();
    }
  });
  await fc.assert(property, { seed: seedOf(t), numRuns: 40 });
  t.pass();
});
