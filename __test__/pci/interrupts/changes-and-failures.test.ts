/** Change reports to a VMM, and the state after changes that the device rejects. */
import test from 'ava';
import { EventFd, type InterruptVector, PeerDmaError } from '../../../ts/index.ts';
import { throwsCode } from '../../support/errors.ts';
import { OFF, bytes, delivered, mask, msi, msix, number, setup } from './support/guest.ts';

/** Formats reported vectors. */
function names(vectors: readonly InterruptVector[]): string[] {
  return vectors.map(({ kind, index, enabled }) => `${kind} ${index} ${enabled ? 'on' : 'off'}`);
}

test('reports vectors with a new message or state before they interrupt', (t) => {
  const { interrupts, device } = setup(t, { intx: 1, msi: 2, msix: 3 });
  const told: string[][] = [];
  interrupts.vector('intx').onInterrupt(() => {});
  interrupts.onChange((vectors) => told.push([...names(vectors), `${device.calls.splice(0).length} calls`]));
  device.calls.length = 0;
  interrupts.configure(msix());
  interrupts.writeTable(16, bytes(0xfee0_0000n, 8));
  interrupts.writeTable(16, bytes(0xfee0_0000n, 8));
  interrupts.writeTable(16 + 8, bytes(0x41n, 8));
  interrupts.configure(msix(true));
  interrupts.configure(msi());
  interrupts.configure(OFF);
  t.deepEqual(told, [
    ['intx 0 off', '0 calls'],
    ['msix 1 off', '2 calls'],
    // The message's data, and unmasked.
    ['msix 1 on', '0 calls'],
    ['msix 1 off', '1 calls'],
    ['msi 0 on', '1 calls'],
    ['intx 0 on', 'msi 0 off', '2 calls'],
  ]);
  interrupts.onChange(undefined);
  interrupts.configure(msi());
  t.is(told.length, 6);
});

test('continues when the callback throws', (t) => {
  const { interrupts, device } = setup(t, { msi: 1 });
  const { queueMicrotask } = globalThis;
  const thrown: unknown[] = [];
  t.teardown(() => (globalThis.queueMicrotask = queueMicrotask));
  globalThis.queueMicrotask = (task) => {
    try {
      task();
    } catch (error) {
      thrown.push(error);
    }
  };
  interrupts.onChange(() => {
    throw new Error("the VMM's own");
  });
  interrupts.configure(msi());
  t.deepEqual(device.connected, { msi: 1 });
  t.deepEqual(thrown, [new Error("the VMM's own")]);
});

test('keeps the previous kind when connecting fails, and can be retried', (t) => {
  const { interrupts, device } = setup(t, { intx: 1, msi: 2, msix: 2 });
  const pin = interrupts.vector('intx');
  pin.onInterrupt(() => {});
  const told: string[][] = [];
  interrupts.onChange((vectors) => told.push(names(vectors)));
  // The pin is disconnected, or MSI is not connected.
  for (const failing of [0, 1]) {
    device.failAt(failing);
    throwsCode(t, () => interrupts.configure(msi({ vectors: 2 })), 'ERR_INTERRUPT_SETUP');
    t.deepEqual(device.connected, { intx: 1 });
    t.true(pin.enabled);
    t.is(interrupts.vector('msi').message, undefined);
  }
  t.deepEqual(told[0], ['intx 0 off', 'msi 0 on', 'msi 1 on']);
  t.deepEqual(told[1], ['intx 0 on', 'msi 0 off', 'msi 1 off']);
  device.failNever();
  interrupts.configure(OFF);
  t.deepEqual(device.connected, { intx: 1 });
  interrupts.configure(msi({ vectors: 2 }));
  t.deepEqual(device.connected, { msi: 2 });
});

test('rolls back masks that fail halfway, and loses no interrupt', (t) => {
  const { interrupts, device } = setup(t, { msix: 4 });
  interrupts.configure(msix());
  for (const index of [0, 2, 3]) mask(interrupts, index, false);
  device.raise('msix', 1);
  for (const failing of [0, 1, 2]) {
    device.failAt(failing);
    // Interrupts that arrive while it is masked temporarily.
    device.between = (call) => void (call === 'after reconnect msix 0' && device.raise('msix', 0));
    throwsCode(t, () => interrupts.configure(msix(true)), 'ERR_INTERRUPT_SETUP');
    device.between = () => {};
    t.deepEqual(device.connected, { msix: 3 });
    t.is(number(interrupts.readPending(0, 8)), 0b10n);
    // Held and released as one, and one that arrived after the vector was connected again.
    t.is(delivered(interrupts.vector('msix', 0)), failing === 0 ? 1n : 2n);
    device.failNever();
    for (const index of [0, 2, 3]) {
      device.raise('msix', index);
      t.is(delivered(interrupts.vector('msix', index)), 1n, `vector ${index} is unmasked`);
    }
  }
});

test('does not store a table write that fails', (t) => {
  const { interrupts, device } = setup(t, { msix: 2 });
  interrupts.configure(msix());
  const before = interrupts.readTable(0, 32);
  const entry = new Uint8Array(16);
  entry.set(bytes(0xfee0_0000n, 8));
  device.raise('msix', 1);
  device.failAt(0);
  throwsCode(t, () => interrupts.writeTable(16, entry), 'ERR_INTERRUPT_SETUP');
  t.deepEqual(interrupts.readTable(0, 32), before);
  t.is(number(interrupts.readPending(0, 8)), 0b10n);
  device.failNever();
  interrupts.writeTable(16, entry);
  t.is(delivered(interrupts.vector('msix', 1)), 1n);
});

test('reports ERR_INTERRUPT_SETUP when no eventfd is left, and keeps the entry masked', (t) => {
  const { interrupts, device } = setup(t, { msix: 2 });
  interrupts.configure(msix());
  const { create } = EventFd;
  t.teardown(() => (EventFd.create = create));
  EventFd.create = () => {
    throw new PeerDmaError('ERR_SYSTEM', 'eventfd failed with EMFILE', { errno: 'EMFILE', syscall: 'eventfd' });
  };
  const { message, ...error } = throwsCode(t, () => mask(interrupts, 1, false), 'ERR_INTERRUPT_SETUP');
  t.regex(message, /RLIMIT_NOFILE/);
  t.like(error, { errno: 'EMFILE', syscall: 'eventfd' });
  t.is(interrupts.readTable(16 + 12, 1)[0], 1);
  EventFd.create = create;
  mask(interrupts, 1, false);
  device.raise('msix', 1);
  t.is(delivered(interrupts.vector('msix', 1)), 1n);
  // The device's own duplicates of eventfds may be what runs out.
  device.judge = () => new PeerDmaError('ERR_SYSTEM', 'dup failed with EMFILE', { errno: 'EMFILE', syscall: 'fcntl' });
  throwsCode(t, () => mask(interrupts, 0, false), 'ERR_INTERRUPT_SETUP');
});

test('reports a failed rollback, and recovers at the next change', (t) => {
  const { interrupts, device } = setup(t, { msi: 1, msix: 2, intx: 1 });
  interrupts.configure(msix());
  mask(interrupts, 0, false);
  device.failAt(0, 1);
  throwsCode(t, () => mask(interrupts, 0, true), 'ERR_ROLLBACK_FAILED');
  t.deepEqual(device.connected, { msix: 0 });
  device.failNever();
  mask(interrupts, 1, true); // which changes nothing of its own
  t.deepEqual(device.connected, { msix: 1 });
  device.raise('msix', 0);
  t.is(delivered(interrupts.vector('msix', 0)), 1n);

  device.failAt(1, 2);
  throwsCode(t, () => interrupts.configure(msi()), 'ERR_ROLLBACK_FAILED');
  t.deepEqual(device.connected, {});
  device.failNever();
  interrupts.configure(msix());
  t.deepEqual(device.connected, { msix: 1 });
});

test('keeps the table when a reset fails', (t) => {
  const { interrupts, device } = setup(t, { msix: 1 });
  interrupts.configure(msix());
  interrupts.writeTable(0, bytes(0xfee0_0000n, 8));
  device.raise('msix', 0);
  device.failAt(0);
  throwsCode(t, () => interrupts.reset(), 'ERR_INTERRUPT_SETUP');
  device.failNever();
  mask(interrupts, 0, false);
  t.is(delivered(interrupts.vector('msix')), 1n);
  t.is(interrupts.vector('msix').message?.address, 0xfee0_0000n);
});

test('marks a vector as unused if connecting it fails, and can be retried', (t) => {
  for (const kind of ['intx', 'request'] as const) {
    const { interrupts, device } = setup(t, { intx: 1, request: 1 });
    const vector = interrupts.vector(kind);
    device.failAt(0);
    throwsCode(t, () => vector.fd, 'ERR_INTERRUPT_SETUP');
    t.false(vector.enabled);
    device.failNever();
    interrupts.configure({ ...OFF, intxDisabled: true });
    interrupts.configure(OFF);
    t.deepEqual(device.connected, {}, 'not connected');
    vector.onInterrupt(() => {});
    t.deepEqual(device.connected, { [kind]: 1 });
  }
});

test('keeps device-pending vectors pending when a change fails', (t) => {
  const { interrupts, device } = setup(t, { msi: 1, msix: 3 });
  interrupts.configure(msix());
  for (const index of [1, 2]) device.raise('msix', index);
  // MSI-X is disconnected, and connected again since MSI is not: a device may have lost its messages.
  device.failAt(1);
  throwsCode(t, () => interrupts.configure(msi()), 'ERR_INTERRUPT_SETUP');
  t.is(number(device.readPending(0, 8)), 0n);
  t.is(number(interrupts.readPending(0, 8)), 0b110n);
  // One more of it, in the device: still one message.
  device.failNever();
  device.raise('msix', 1);
  mask(interrupts, 1, false);
  t.is(delivered(interrupts.vector('msix', 1)), 1n);
  // One write unmasks two entries; the second one fails.
  interrupts.configure(msix(true));
  mask(interrupts, 0, false);
  mask(interrupts, 2, false);
  device.raise('msix', 0);
  device.failAt(2);
  throwsCode(t, () => interrupts.configure(msix()), 'ERR_INTERRUPT_SETUP');
  t.is(number(interrupts.readPending(0, 8)), 0b101n);
  for (const index of [0, 2]) t.false(interrupts.vector('msix', index).hasEvent('event'));
  device.failNever();
  interrupts.configure(msix());
  t.deepEqual(
    [0, 1, 2].map((index) => delivered(interrupts.vector('msix', index))),
    [1n, 0n, 1n],
  );
});

test('keeps interrupts pending that arrive during a failed unmasking, also after a failed rollback', (t) => {
  const { interrupts, device } = setup(t, { msix: 2 });
  interrupts.configure(msix(true));
  for (const index of [0, 1]) mask(interrupts, index, false);
  device.raise('msix', 0);
  device.failAt(1, 2);
  throwsCode(t, () => interrupts.configure(msix()), 'ERR_ROLLBACK_FAILED');
  t.is(number(interrupts.readPending(0, 8)), 0b1n);
  t.false(interrupts.vector('msix', 0).hasEvent('event'));
  device.failNever();
  interrupts.configure(msix());
  t.is(delivered(interrupts.vector('msix', 0)), 1n);
});

test('changes nothing if no descriptors are left for an unmasking', (t) => {
  const { interrupts, device } = setup(t, { msix: 4 });
  interrupts.configure(msix(true));
  for (const index of [0, 1, 2, 3]) mask(interrupts, index, false);
  device.raise('msix', 1);
  device.calls.length = 0;
  const { create } = EventFd;
  t.teardown(() => (EventFd.create = create));
  for (const enough of [0, 1, 3]) {
    let left = enough;
    EventFd.create = () => {
      if (left-- === 0) throw new PeerDmaError('ERR_SYSTEM', 'too many open files', { errno: 'EMFILE' });
      return create();
    };
    throwsCode(t, () => interrupts.configure(msix()), 'ERR_INTERRUPT_SETUP');
    EventFd.create = create;
    t.deepEqual(device.calls, [], 'the device receives no call');
    for (const index of [0, 1, 2, 3]) t.false(interrupts.vector('msix', index).hasEvent('event'));
    t.is(number(interrupts.readPending(0, 8)), 0b10n);
  }
  interrupts.configure(msix());
  t.is(delivered(interrupts.vector('msix', 1)), 1n);
});

test('continues without the pending bits of a device whose BAR does not decode', (t) => {
  const { interrupts, device } = setup(t, { msi: 1, msix: 2 });
  interrupts.configure(msix());
  device.raise('msix', 1);
  device.readPending = () => {
    throw new PeerDmaError('ERR_BAR_DISABLED', 'off');
  };
  throwsCode(t, () => interrupts.readPending(0, 8), 'ERR_BAR_DISABLED');
  mask(interrupts, 1, false);
  t.is(delivered(interrupts.vector('msix', 1)), 1n);
  interrupts.configure(msi());
  t.deepEqual(device.connected, { msi: 1 });
});

test('reports nothing pending for a device that does not respond', (t) => {
  const { interrupts, device } = setup(t, { msi: 1, msix: 2 });
  interrupts.configure(msix());
  device.raise('msix', 0);
  device.failAt(1);
  throwsCode(t, () => interrupts.configure(msi()), 'ERR_INTERRUPT_SETUP'); // held here from then on
  device.readPending = (_, length) => new Uint8Array(length).fill(0xff);
  device.failAt(1);
  throwsCode(t, () => interrupts.configure(msi()), 'ERR_INTERRUPT_SETUP');
  device.failNever();
  for (const entry of [0, 1]) mask(interrupts, entry, false);
  t.deepEqual(
    [0, 1].map((index) => delivered(interrupts.vector('msix', index))),
    [1n, 0n],
  );
});

test('reconnects a pin completely after it could be neither prepared nor disconnected', (t) => {
  const { interrupts, device } = setup(t, { intx: 1 });
  const pin = interrupts.vector('intx');
  const { resampleFd } = interrupts;
  device.failAt(1, 2);
  throwsCode(t, () => pin.fd, 'ERR_INTERRUPT_SETUP');
  t.deepEqual(device.connected, { intx: 1 }, 'as it is');
  device.failNever();
  t.true(pin.fd > 0);
  t.is(device.resample?.fd, resampleFd);
  device.raise('intx');
  t.is(delivered(pin), 1n);
});

test('disconnects everything and closes the eventfds on closing', (t) => {
  const { interrupts, device } = setup(t, { intx: 1, msix: 2, request: 1 });
  const [pin, message, request] = [interrupts.vector('intx'), interrupts.vector('msix'), interrupts.vector('request')];
  t.true(request.fd > 0);
  t.true(interrupts.resampleFd > 0);
  interrupts.configure(msix());
  t.true(message.fd > 0);
  interrupts.close();
  interrupts.close();
  t.deepEqual(device.connected, {});
  t.false(message.enabled);
  for (const act of [
    () => message.fd,
    () => request.fd,
    () => pin.fd,
    () => message.onInterrupt(() => {}),
    () => interrupts.resampleFd,
    () => interrupts.configure(msix()),
    () => interrupts.writeTable(0, new Uint8Array(4)),
    () => interrupts.reset(),
  ]) {
    throwsCode(t, act, 'ERR_CLOSED', String(act));
  }
  message.onInterrupt(undefined);
  t.is(number(interrupts.readPending(0, 8)), 0n);
});

test('connects only what config space enables after a reset, including the pin', (t) => {
  const { interrupts, device } = setup(t, { intx: 1, msi: 1 });
  const pin = interrupts.vector('intx');
  t.true(pin.fd > 0);
  device.raise('intx'); // which nobody takes
  device.calls.length = 0;
  for (let time = 0; time < 2; time++) interrupts.suspend();
  for (let time = 0; time < 2; time++) interrupts.reset();
  t.deepEqual(device.calls, ['disconnect intx']);
  t.is(delivered(pin), 0n);
  interrupts.configure(OFF);
  interrupts.configure(OFF);
  t.deepEqual(device.calls.splice(0), ['disconnect intx', 'connect intx 1']);
  device.failAt(0);
  throwsCode(t, () => interrupts.suspend(), 'ERR_INTERRUPT_SETUP');
  device.failNever();
  interrupts.configure(OFF);
  t.deepEqual(device.calls, ['disconnect intx', 'disconnect intx', 'connect intx 1']);
});

test('leaves no eventfds behind when connecting fails', (t) => {
  const { interrupts, device } = setup(t, { msix: 3 });
  const { fd } = interrupts.vector('msix', 0);
  device.failAt(0);
  throwsCode(t, () => interrupts.configure(msix()), 'ERR_INTERRUPT_SETUP');
  interrupts.vector('msix', 1).onInterrupt(undefined);
  for (const index of [0, 1, 2]) {
    const vector = interrupts.vector('msix', index);
    t.deepEqual([vector.hasEvent('event'), vector.hasEvent('masked')], [index === 0, false]);
  }
  device.failNever();
  interrupts.configure(msix());
  t.is(interrupts.vector('msix', 0).fd, fd);
});
