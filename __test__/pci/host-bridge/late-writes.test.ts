/** Writes of BARs that take effect later: accesses after them wait, as they do for config writes. */
import test from 'ava';
import { AddressRange, type GuestPciFunction, PciHostBridge } from '../../../ts/index.ts';
import { ECAM, LOW, ecamAddress, ones } from './support/guest.ts';

const PLACE = LOW.start;

/** A function whose writes wait until they are released, in the order of the calls. */
class LateFunction implements GuestPciFunction {
  decodedBars: AddressRange[] = [AddressRange.of(PLACE, 0x1000n)];
  /** The write that waits. */
  pending: { resolve(): void; reject(error: Error): void } | undefined;
  readonly log: string[] = [];

  configRead = (_offset: number, size: number): number => 2 ** (8 * size) - 1;
  configWrite = (): Promise<void> => this.#late('config');
  mmioRead = (_gpa: bigint, length: number): Uint8Array => new Uint8Array(length).fill(0x11);
  mmioWrite = (): Promise<void> => this.#late('bar');

  #late(what: string): Promise<void> {
    this.log.push(what);
    return new Promise((resolve, reject) => {
      this.pending = { resolve, reject };
    });
  }
}

function scene(): { bridge: PciHostBridge; late: LateFunction; write(): Promise<void>; settled(): Promise<void> } {
  const bridge = new PciHostBridge({ ecam: ECAM, windows: [LOW] });
  const late = new LateFunction();
  bridge.add('00:01.0', late);
  const write = (): Promise<void> => Promise.resolve(bridge.mmioWrite(PLACE, ones(4)));
  return { bridge, late, write, settled: () => new Promise((resolve) => void setImmediate(resolve)) };
}

test('each access waits for the write before it, also if that one has waited itself', async (t) => {
  const { bridge, late, write, settled } = scene();
  const [first, second] = [write(), write()];
  const third = bridge.mmioWrite(ecamAddress('00:01.0') + 4n, ones(2));
  t.deepEqual(late.log, ['bar']);
  late.pending?.resolve();
  await first;
  await settled();
  t.deepEqual(late.log, ['bar', 'bar']);
  late.pending?.resolve();
  await second;
  await settled();
  t.deepEqual(late.log, ['bar', 'bar', 'config']);
  const read = bridge.mmioRead(PLACE, 4);
  t.true(read instanceof Promise, 'the config write is in flight');
  late.pending?.resolve();
  await third;
  t.deepEqual(await read, new Uint8Array(4).fill(0x11));
  t.false(bridge.mmioRead(PLACE, 4) instanceof Promise);
});

test('the BARs of a function are read again after a write that takes effect later', async (t) => {
  const { bridge, late, write } = scene();
  const moved = write();
  late.decodedBars = [AddressRange.of(PLACE + 0x1000n, 0x1000n)];
  const [old, found] = [bridge.mmioRead(PLACE, 1), bridge.mmioRead(PLACE + 0x1000n, 1)];
  late.pending?.resolve();
  await moved;
  t.deepEqual([await old, await found], [ones(1), Uint8Array.of(0x11)]);
});

test('a failed write rejects, and accesses after it are made', async (t) => {
  const { bridge, late, write } = scene();
  const failed = write();
  const read = bridge.mmioRead(PLACE, 1);
  late.pending?.reject(new RangeError('mine'));
  await t.throwsAsync(failed, { instanceOf: RangeError, message: 'mine' });
  t.deepEqual(await read, Uint8Array.of(0x11));
});
