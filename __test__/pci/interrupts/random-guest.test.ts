/**
 * Random guests against a naive model, with random failures of the device.
 *
 * Each interrupt is delivered or pending, a burst while masked is one interrupt, and the VMM receives each change.
 */
import test, { type ExecutionContext } from 'ava';
import fc from 'fast-check';
import { isDeepStrictEqual } from 'node:util';
import type { InterruptControl } from '../../../ts/pci/config/interrupt-control.ts';
import { PeerDmaError } from '../../../ts/index.ts';
import { seedOf } from '../../support/seed.ts';
import { OFF, bytes, interruptsOf, number } from './support/guest.ts';
import { InterruptModel, type Routed } from './support/model.ts';
import { StrictInterrupts } from './support/strict-interrupts.ts';

const COUNTS = { intx: 1, msi: 4, msix: 5 } as const;
const KINDS: readonly Routed[] = ['intx', 'msi', 'msix'];
const RUNS = 600;

type Operation =
  | { readonly does: 'configure'; readonly control: InterruptControl }
  | { readonly does: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly does: 'raise'; readonly kind: Routed; readonly index: number; readonly times: number }
  | { readonly does: 'take' | 'reset' };

/** An operation, and which of the device's calls for it is refused, if it makes that many. */
interface Step {
  readonly operation: Operation;
  readonly refused: number | undefined;
}

const control: fc.Arbitrary<InterruptControl> = fc.record({
  intxDisabled: fc.boolean(),
  msi: fc.option(
    fc.record({
      enabled: fc.boolean(),
      vectors: fc.constantFrom(1, 2, 4),
      address: fc.constantFrom(0xfee0_0000n, 0xfee0_1000n),
      data: fc.integer({ min: 0, max: 0xffff }),
      masks: fc.integer({ min: 0, max: 15 }),
    }),
    { nil: undefined },
  ),
  msix: fc.record({ enabled: fc.boolean(), masked: fc.boolean() }),
});

/** Aligned accesses of 1, 2, 4 and 8 bytes, mostly to the mask bits of entries. */
const write: fc.Arbitrary<Operation> = fc
  .record({
    width: fc.constantFrom(1, 2, 4, 8),
    entry: fc.nat(COUNTS.msix - 1),
    within: fc.oneof({ weight: 3, arbitrary: fc.constant(12) }, { weight: 2, arbitrary: fc.nat(15) }),
    value: fc.oneof(fc.constantFrom(0n, 1n), fc.bigInt(0n, (1n << 64n) - 1n)),
  })
  .map(({ width, entry, within, value }) => ({
    does: 'write',
    offset: entry * 16 + within - (within % width),
    // An access of 8 bytes has vector control in its upper half.
    bytes: bytes(width === 8 && within >= 8 ? (value << 32n) | 0x41n : value, width),
  }));

const raise: fc.Arbitrary<Operation> = fc.constantFrom(...KINDS).chain((kind) =>
  fc.record({
    does: fc.constant('raise' as const),
    kind: fc.constant(kind),
    index: fc.nat(COUNTS[kind] - 1),
    times: fc.integer({ min: 1, max: 3 }),
  }),
);

const operation: fc.Arbitrary<Operation> = fc.oneof(
  { weight: 4, arbitrary: control.map((wanted) => ({ does: 'configure' as const, control: wanted })) },
  { weight: 6, arbitrary: write },
  { weight: 6, arbitrary: raise },
  { weight: 1, arbitrary: fc.constantFrom({ does: 'take' as const }, { does: 'reset' as const }) },
);

const step: fc.Arbitrary<Step> = fc.record({
  operation,
  refused: fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 2, arbitrary: fc.nat(2) }),
});

/** Model and implementation, side by side. */
class Pair {
  readonly device = new StrictInterrupts(COUNTS);
  readonly interrupts = interruptsOf(this.device, COUNTS.msix);
  readonly model = new InterruptModel(COUNTS);
  /** The VMM's view of each vector, from the reported changes. */
  readonly #reported = new Map<string, unknown>();
  readonly #delivered = new Map<string, bigint>();
  readonly statistics = { refused: 0, pending: 0n, delivered: 0n };

  constructor() {
    for (const kind of KINDS) {
      for (let index = 0; index < COUNTS[kind]; index++)
        this.#reported.set(`${kind} ${index}`, this.#viewOf(kind, index));
    }
    this.interrupts.onChange((vectors) => {
      for (const { kind, index } of vectors)
        this.#reported.set(`${kind} ${index}`, this.#viewOf(kind as Routed, index));
    });
  }

  run({ operation: wanted, refused }: Step): void {
    if (refused !== undefined) this.device.failAt(refused);
    try {
      this.#act(wanted);
    } catch (error) {
      if (!(error instanceof PeerDmaError) || error.code !== 'ERR_INTERRUPT_SETUP') throw error;
      this.statistics.refused++;
      this.device.failNever();
      if (wanted.does !== 'reset') return; // the model has not changed, and what follows compares
      this.#act(wanted); // there is no way back from a reset of the device, but again
    }
    this.device.failNever();
    this.#actInModel(wanted);
  }

  #act(wanted: Operation): void {
    switch (wanted.does) {
      case 'configure':
        return this.#configure(wanted.control);
      case 'write':
        return this.interrupts.writeTable(wanted.offset, wanted.bytes);
      case 'raise':
        for (let time = 0; time < wanted.times; time++) this.device.raise(wanted.kind, wanted.index);
        return;
      case 'take':
        return void this.interrupts.vector('intx').fd;
      case 'reset':
        this.interrupts.suspend();
        this.interrupts.reset();
        return this.#configure(OFF);
    }
  }

  /** The device receives Command before its interrupts are connected, and again if that fails. */
  #configure(wanted: InterruptControl): void {
    const { pinOff } = this.device;
    this.device.pinOff = wanted.intxDisabled;
    try {
      this.interrupts.configure(wanted);
    } catch (error) {
      this.device.pinOff = pinOff;
      throw error;
    }
  }

  #actInModel(wanted: Operation): void {
    const { model } = this;
    if (wanted.does === 'configure') model.configure(wanted.control);
    if (wanted.does === 'write') model.write(wanted.offset, wanted.bytes);
    if (wanted.does === 'raise') for (let time = 0; time < wanted.times; time++) model.raise(wanted.kind, wanted.index);
    if (wanted.does === 'take') this.#usePin();
    if (wanted.does === 'reset') model.reset();
    model.settle();
  }

  /** The VMM reads the state of the pin when it first uses it; no change is reported. */
  #usePin(): void {
    this.model.pinTaken = true;
    this.#reported.set('intx 0', this.#viewOf('intx', 0));
  }

  /** Everything that can be seen is the same in both. */
  compare(t: ExecutionContext): void {
    const { model, interrupts } = this;
    const seen: unknown[] = [Buffer.from(interrupts.readTable(0, COUNTS.msix * 16)).toString('hex')];
    const expected: unknown[] = [Buffer.from(model.table).toString('hex')];
    seen.push(number(interrupts.readPending(0, 8)), BigInt(interrupts.msiPending()));
    expected.push(model.pendingBits('msix'), model.pendingBits('msi'));
    for (const kind of KINDS) {
      for (const [index, { delivered }] of model.vectors[kind].entries()) {
        const name = `${kind} ${index}`;
        const sum = (this.#delivered.get(name) ?? 0n) + interrupts.vector(kind, index).event.take();
        this.#delivered.set(name, sum);
        seen.push([name, sum, this.#viewOf(kind, index), this.#reported.get(name)]);
        const look = { enabled: model.enabled(kind, index), message: model.message(kind, index) };
        expected.push([name, delivered, look, look]);
        this.statistics.delivered += sum;
      }
    }
    this.statistics.pending += model.pendingBits('msix') + model.pendingBits('msi');
    if (isDeepStrictEqual(seen, expected)) return; // which is faster than the assertion
    t.deepEqual(seen, expected);
    throw new Error('they differ');
  }

  #viewOf(kind: Routed, index: number): unknown {
    const { enabled, message } = this.interrupts.vector(kind, index);
    return { enabled, message };
  }
}

test('neither loses nor invents interrupts with random guests and devices', (t) => {
  const seed = seedOf(t);
  const sum = { steps: 0, refused: 0, pending: 0, delivered: 0 };
  const property = fc.property(fc.array(step, { maxLength: 60, size: 'max' }), (steps) => {
    const pair = new Pair();
    try {
      for (const one of steps) {
        pair.run(one);
        pair.compare(t);
      }
      sum.steps += steps.length;
      sum.refused += pair.statistics.refused;
      if (pair.statistics.pending > 0n) sum.pending++;
      if (pair.statistics.delivered > 0n) sum.delivered++;
    } finally {
      pair.interrupts.close();
    }
  });
  fc.assert(property, { numRuns: RUNS, seed });
  t.log(JSON.stringify(sum));
  t.true(Math.min(sum.refused, sum.pending, sum.delivered) > RUNS / 4, 'the programs do something');
});
