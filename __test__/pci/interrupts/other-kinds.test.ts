/**
 * MSI, the pin, errors and requests of an assigned device.
 */
import test from 'ava';
import { throwsCode } from '../../support/errors.ts';
import { OFF, delivered, msi, msix, setup } from './support/guest.ts';

test('numbers the enabled MSI vectors in the low bits of the data', (t) => {
  const { interrupts, device } = setup(t, { msi: 4, intx: 1 });
  interrupts.configure(msi({ enabled: false, vectors: 4, address: 0xfee0_1000n, data: 0x4f }));
  t.deepEqual(device.connected, {});
  t.deepEqual(interrupts.vector('msi', 2).message, { address: 0xfee0_1000n, data: 0x4e });
  t.false(interrupts.vector('msi', 2).enabled);
  interrupts.configure(msi({ vectors: 2, address: 0xfee0_1000n, data: 0x4f }));
  t.deepEqual(device.connected, { msi: 2 });
  const vectors = [0, 1, 2, 3].map((index) => interrupts.vector('msi', index));
  t.deepEqual(
    vectors.map(({ enabled, message }) => [enabled, message?.data]),
    [
      [true, 0x4e],
      [true, 0x4f],
      [false, undefined],
      [false, undefined],
    ],
  );
  device.raise('msi', 1);
  t.deepEqual(vectors.map(delivered), [0n, 1n, 0n, 0n]);
  interrupts.configure(msi({ vectors: 4 }));
  t.deepEqual(device.connected, { msi: 4 });
});

test('keeps masked MSI vectors pending', (t) => {
  const { interrupts, device } = setup(t, { msi: 32 });
  interrupts.configure(msi({ vectors: 32, masks: 0x8000_0001 }));
  for (const index of [0, 1, 31, 31]) device.raise('msi', index);
  t.is(interrupts.msiPending(), 0x8000_0001);
  t.is(delivered(interrupts.vector('msi', 1)), 1n);
  device.calls.length = 0;
  interrupts.configure(msi({ vectors: 32, masks: 1 }));
  t.deepEqual(device.calls, ['reconnect msi 31']);
  t.is(interrupts.msiPending(), 1);
  t.is(delivered(interrupts.vector('msi', 31)), 1n);
  t.is(delivered(interrupts.vector('msi', 0)), 0n);
});

test('connects the pin on first use, while no other kind is enabled', (t) => {
  const { interrupts, device } = setup(t, { intx: 1, msi: 1, msix: 1 });
  interrupts.configure(OFF);
  interrupts.unmaskIntx();
  t.deepEqual(device.calls, []);
  const pin = interrupts.vector('intx');
  t.false(pin.enabled);
  t.is(pin.message, undefined);
  t.true(pin.fd > 0);
  t.true(pin.enabled);
  t.deepEqual(device.connected, { intx: 1 });
  device.raise('intx');
  t.is(delivered(pin), 1n);
  interrupts.unmaskIntx();

  for (const [control, connected] of [
    [msi(), { msi: 1 }],
    // With an entry that is masked.
    [msix(), { msix: 0 }],
    // Both at once is an error of the guest.
    [{ ...msi(), msix: { enabled: true, masked: false } }, { msix: 0 }],
    [{ ...msi({ enabled: false }), msix: { enabled: false, masked: true } }, { intx: 1 }],
  ] as const) {
    interrupts.configure(control);
    t.deepEqual(device.connected, connected);
    t.is(pin.enabled, 'intx' in connected);
  }
});

test('keeps a disabled pin connected, and reports it as not enabled', (t) => {
  const { interrupts, device } = setup(t, { intx: 1 });
  const told: boolean[] = [];
  interrupts.onChange(([vector]) => told.push(vector?.enabled === true));
  const pin = interrupts.vector('intx');
  interrupts.configure({ ...OFF, intxDisabled: true });
  t.true(pin.fd > 0);
  t.deepEqual([device.connected, pin.enabled], [{ intx: 1 }, false]);
  device.calls.length = 0;
  for (const intxDisabled of [false, true]) {
    interrupts.configure({ ...OFF, intxDisabled });
    t.is(pin.enabled, !intxDisabled);
  }
  t.deepEqual(told, [true, false]);
  t.deepEqual(device.calls, []);
});

test('clears the pin when it is disabled, unless disabling fails', (t) => {
  const { interrupts, device } = setup(t, { intx: 1, msi: 1 });
  const pin = interrupts.vector('intx');
  t.true(pin.fd > 0);
  for (const off of [{ ...OFF, intxDisabled: true }, msi()]) {
    device.raise('intx');
    interrupts.configure(off);
    t.is(delivered(pin), 0n);
    interrupts.configure(OFF);
    device.raise('intx');
    interrupts.configure({ ...msi({ enabled: false }) });
    t.is(delivered(pin), 1n, 'it is on');
  }
  device.raise('intx');
  device.failAt(1);
  throwsCode(t, () => interrupts.configure(msi()), 'ERR_INTERRUPT_SETUP');
  t.is(delivered(pin), 1n);
});

test('sets up the resample event each time the pin is connected', (t) => {
  const { interrupts, device } = setup(t, { intx: 1, msi: 1 });
  t.is(interrupts.resampleFd, interrupts.resampleFd);
  interrupts.vector('intx').onInterrupt(() => {});
  t.is(device.resample?.fd, interrupts.resampleFd);
  interrupts.configure(msi());
  t.is(device.resample, undefined);
  interrupts.configure(OFF);
  t.is(device.resample?.fd, interrupts.resampleFd);

  const late = setup(t, { intx: 1 });
  late.interrupts.vector('intx').onInterrupt(() => {});
  late.device.failAt(0);
  throwsCode(t, () => late.interrupts.resampleFd, 'ERR_INTERRUPT_SETUP');
  const { resampleFd } = late.interrupts;
  t.is(late.device.resample?.fd, resampleFd);
});

test('connects errors and requests on first use, and keeps them connected', (t) => {
  const { interrupts, device } = setup(t, { error: 1, request: 1, msi: 1 });
  interrupts.configure(msi());
  t.deepEqual(device.connected, { msi: 1 });
  const request = interrupts.vector('request');
  t.false(request.enabled);
  request.onInterrupt(() => {});
  request.onInterrupt(undefined);
  t.deepEqual(device.connected, { msi: 1, request: 1 });
  t.true(interrupts.vector('error').fd > 0);
  interrupts.reset();
  t.deepEqual(device.connected, { error: 1, request: 1 });
  device.raise('request');
  t.is(delivered(request), 1n);
});

test('returns the same vector objects, and only existing ones', (t) => {
  const { interrupts } = setup(t, { msi: 2, request: 1 });
  t.is(interrupts.vector('msi', 1), interrupts.vector('msi', 1));
  t.deepEqual(
    (['intx', 'msi', 'msix', 'error', 'request'] as const).map((kind) => interrupts.count(kind)),
    [0, 2, 0, 0, 1],
  );
  for (const [kind, index] of [
    ['msi', 2],
    ['msi', -1],
    ['msi', 0.5],
    ['intx', 0],
    ['msix', 0],
  ] as const) {
    throwsCode(t, () => interrupts.vector(kind, index), 'ERR_INTERRUPT_UNSUPPORTED', `${kind} ${index}`);
  }
  throwsCode(t, () => interrupts.vector('nmi' as 'msi'), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => interrupts.count('nmi' as 'msi'), 'ERR_INVALID_ARGUMENT');
});

test('calls back for interrupts, including earlier ones', async (t) => {
  const { interrupts, device } = setup(t, { msi: 1 });
  interrupts.configure(msi());
  device.raise('msi');
  const counts: bigint[] = [];
  interrupts.vector('msi').onInterrupt((count) => counts.push(count));
  while (counts.length === 0) await new Promise(setImmediate);
  device.raise('msi');
  device.raise('msi');
  while (counts.length === 1) await new Promise(setImmediate);
  t.deepEqual(counts, [1n, 2n]);
});
