/** The guest's MSI-X: table, masks and pending bits. */
import test from 'ava';
import { throwsCode } from '../../support/errors.ts';
import { OFF, bytes, delivered, mask, msix, number, setup } from './support/guest.ts';

test('masks all entries after power-on, without messages', (t) => {
  const { interrupts, device } = setup(t, { msix: 3 });
  for (let entry = 0; entry < 3; entry++) {
    t.is(number(interrupts.readTable(entry * 16, 16)), 1n << 96n);
    const vector = interrupts.vector('msix', entry);
    t.deepEqual(vector.message, { address: 0n, data: 0 });
    t.false(vector.enabled);
  }
  t.is(number(interrupts.readPending(0, 8)), 0n);
  t.deepEqual(device.connected, {});
});

test('stores a message of any access width, without reserved bits', (t) => {
  const { interrupts } = setup(t, { msix: 2 });
  interrupts.writeTable(16, new Uint8Array(16).fill(0xff));
  t.is(number(interrupts.readTable(16, 8)), 0xffff_ffff_ffff_fffcn);
  t.is(number(interrupts.readTable(24, 8)), 0x1_ffff_ffffn);
  interrupts.writeTable(16, bytes(0x1_fee0_1004n, 8));
  interrupts.writeTable(24, bytes(0x1234_5678n, 4));
  interrupts.writeTable(25, bytes(0xabn, 1));
  interrupts.writeTable(26, bytes(0xcdefn, 2));
  t.deepEqual(interrupts.vector('msix', 1).message, { address: 0x1_fee0_1004n, data: 0xcdef_ab78 });
  t.is(number(interrupts.readTable(25, 2)), 0xefabn);
  t.is(number(interrupts.readTable(0, 16)), 1n << 96n, 'the other entry is as it was');
});

test('rejects accesses outside the table and the pending bits', (t) => {
  const { interrupts } = setup(t, { msix: 65 });
  for (const [offset, length] of [
    [65 * 16, 1],
    [65 * 16 - 4, 8],
    [-1, 1],
    [0.5, 1],
  ] as const) {
    throwsCode(t, () => interrupts.readTable(offset, length), 'ERR_OUT_OF_RANGE');
    throwsCode(t, () => interrupts.writeTable(offset, new Uint8Array(length)), 'ERR_OUT_OF_RANGE');
  }
  t.is(interrupts.readPending(8, 8).length, 8);
  throwsCode(t, () => interrupts.readPending(16, 1), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => setup(t, {}).interrupts.readPending(0, 1), 'ERR_OUT_OF_RANGE');
});

test('delivers interrupts of an unmasked vector, and a masked burst as one message', (t) => {
  const { interrupts, device } = setup(t, { msix: 70 });
  interrupts.configure(msix());
  const vector = interrupts.vector('msix', 66);
  mask(interrupts, 66, false);
  t.true(vector.enabled);
  device.raise('msix', 66);
  device.raise('msix', 66);
  t.is(delivered(vector), 2n);

  mask(interrupts, 66, true);
  for (let burst = 0; burst < 5; burst++) device.raise('msix', 66);
  t.false(vector.enabled);
  t.is(delivered(vector), 0n);
  for (let read = 0; read < 2; read++) {
    t.is(number(interrupts.readPending(0, 8)), 0n);
    t.is(number(interrupts.readPending(8, 8)), 1n << 2n);
    t.is(number(interrupts.readPending(8, 1)), 4n);
  }
  mask(interrupts, 66, false);
  t.is(delivered(vector), 1n);
  t.is(number(interrupts.readPending(8, 8)), 0n);
  mask(interrupts, 66, true);
  mask(interrupts, 66, false);
  t.is(delivered(vector), 0n, 'the guest can read it');
});

test('masks every vector by the function mask, and keeps the vector masks', (t) => {
  const { interrupts, device } = setup(t, { msix: 3 });
  interrupts.configure(msix());
  mask(interrupts, 0, false);
  mask(interrupts, 1, false);
  interrupts.configure(msix(true));
  mask(interrupts, 1, true);
  for (const index of [0, 1, 2]) device.raise('msix', index);
  t.is(number(interrupts.readPending(0, 8)), 0b111n);
  interrupts.configure(msix());
  t.is(number(interrupts.readPending(0, 8)), 0b110n);
  t.deepEqual(
    [0, 1, 2].map((index) => delivered(interrupts.vector('msix', index))),
    [1n, 0n, 0n],
  );
});

test('delivers or keeps pending an interrupt at any moment of masking', (t) => {
  const { interrupts, device } = setup(t, { msix: 1 });
  interrupts.configure(msix());
  const vector = interrupts.vector('msix');
  for (const moment of ['before', 'after']) {
    for (const masked of [false, true]) {
      device.between = (call) => void (call.startsWith(moment) && device.raise('msix', 0));
      mask(interrupts, 0, masked);
      device.between = () => {};
      const pending = number(interrupts.readPending(0, 8));
      t.is(delivered(vector) + pending, 1n, `${moment} the change, which is to ${masked ? 'mask' : 'unmask'}`);
      if (pending === 0n) continue;
      mask(interrupts, 0, false);
      t.is(delivered(vector), 1n);
      mask(interrupts, 0, true);
    }
  }
});

test('creates no eventfd for an entry never unmasked, whose messages stay in the device', (t) => {
  const { interrupts, device } = setup(t, { msix: 70 });
  const vector = interrupts.vector('msix', 66);
  const eventfds = (): boolean[] => [vector.hasEvent('event'), vector.hasEvent('masked')];
  interrupts.configure(msix());
  mask(interrupts, 3, false);
  t.deepEqual(device.connected, { msix: 1 });
  for (let burst = 0; burst < 3; burst++) device.raise('msix', 66);
  t.is(number(interrupts.readPending(8, 8)), 1n << 2n);
  t.is(number(interrupts.readPending(8, 1)), 4n);
  t.deepEqual(eventfds(), [false, false]);
  mask(interrupts, 66, false);
  t.deepEqual(eventfds(), [true, false]);
  t.is(number(interrupts.readPending(8, 8)), 0n);
  t.is(delivered(vector), 1n);

  // From then on it is held here.
  mask(interrupts, 66, true);
  t.deepEqual(eventfds(), [true, true]);
  device.raise('msix', 66);
  t.is(number(interrupts.readPending(8, 8)), 1n << 2n);
  t.is(number(device.readPending(8, 8)), 0n);
  t.deepEqual(device.connected, { msix: 2 });

  // Disabled and enabled again it is as in the beginning.
  interrupts.configure(OFF);
  interrupts.configure(msix());
  t.deepEqual(device.connected, { msix: 1 });
  t.is(number(interrupts.readPending(8, 8)), 0n);
});

test('ignores the device’s pending bits of connected vectors', (t) => {
  const { interrupts, device } = setup(t, { msix: 3 });
  interrupts.configure(msix());
  for (const index of [0, 1]) mask(interrupts, index, false);
  mask(interrupts, 1, true);
  // As if the host had just moved their interrupts to another processor.
  device.readPending = (_, length) => new Uint8Array(length).fill(0b111);
  t.is(number(interrupts.readPending(0, 1)), 0b100n);
});

test('does not connect a vector just because the VMM uses it', (t) => {
  const { interrupts, device } = setup(t, { msix: 2 });
  interrupts.configure(msix());
  const vector = interrupts.vector('msix', 1);
  t.true(vector.fd > 0);
  t.deepEqual(device.connected, { msix: 0 });
  device.raise('msix', 1);
  t.is(delivered(vector), 0n);
  mask(interrupts, 1, false);
  t.is(delivered(vector), 1n);
});

test('touches only the vectors that change', (t) => {
  const { interrupts, device } = setup(t, { msix: 2048 });
  interrupts.configure(msix(true));
  t.deepEqual(device.calls.splice(0), ['connect msix 2048']);
  interrupts.writeTable(7 * 16, bytes(0xfee0_0000n, 8));
  interrupts.configure(msix(true));
  mask(interrupts, 7, false);
  t.deepEqual(device.calls, []);
  interrupts.configure(msix());
  mask(interrupts, 8, false);
  mask(interrupts, 8, false);
  t.deepEqual(device.calls, ['reconnect msix 7', 'reconnect msix 8']);
});

test('clears pending bits when MSI-X is disabled, and the table at a reset', (t) => {
  const { interrupts, device } = setup(t, { msix: 2 });
  interrupts.configure(msix());
  interrupts.writeTable(16, bytes(0xfee0_0000n, 8));
  device.raise('msix', 1);
  interrupts.configure(OFF);
  t.deepEqual(device.connected, {});
  mask(interrupts, 1, false);
  t.is(delivered(interrupts.vector('msix', 1)), 0n, 'MSI-X is off');
  interrupts.configure(msix());
  t.is(delivered(interrupts.vector('msix', 1)), 0n, 'it was dropped when MSI-X was disabled');

  device.raise('msix', 1); // which nobody takes
  mask(interrupts, 1, true);
  t.is(number(interrupts.readPending(0, 8)), 2n);
  t.is(delivered(interrupts.vector('msix', 1)), 0n, 'it waits with the mask');
  interrupts.configure(msix(true));
  interrupts.reset();
  t.deepEqual(device.connected, {});
  t.is(number(interrupts.readPending(0, 8)), 0n);
  t.is(number(interrupts.readTable(16, 16)), 1n << 96n);
  interrupts.configure(msix());
  mask(interrupts, 1, false);
  t.is(delivered(interrupts.vector('msix', 1)), 0n);
});
