/**
 * Interrupts of real devices: delivery, counts, masks and disconnection.
 */
import type { EventFd } from '../../ts/event-fd.ts';
import { throwsCode } from '../support/errors.ts';
import { testWith } from './support/devices.ts';
import { until } from '../support/until.ts';
import { InterruptingEdu, arrives, counted, event, silent } from './support/edu-interrupts.ts';
import { eventFiles, openVfioFiles } from './support/open-files.ts';
import { repetitions } from './support/repetitions.ts';
import { rig } from './support/rig.ts';

/** Messages, in bursts without a turn of the event loop. */
const MESSAGES = repetitions(2_000);
const BURST = 200;

testWith({ edu: 1 }, 'a device reports the interrupts that it has', async (t, { edu: [bdf = ''] }) => {
  const { device } = await InterruptingEdu.open(t, bdf);
  const counts = (['intx', 'msi', 'msix', 'request'] as const).map((kind) => device.interrupts.count(kind));
  t.deepEqual(counts, [1, 1, 0, 1]);
  // A conventional device does not report errors of PCI Express: Linux 6 has no vector for them, Linux 7.3 has one
  // anyway.
  t.true([0, 1].includes(device.interrupts.count('error')));
  throwsCode(t, () => device.interrupts.count('nmi' as 'msi'), 'ERR_INVALID_ARGUMENT');
});

testWith({ edu: 1 }, 'a message calls the callback', async (t, { edu: [bdf = ''] }) => {
  const edu = await InterruptingEdu.open(t, bdf);
  const signalled = event(t);
  const counts: bigint[] = [];
  signalled.onSignal((count) => counts.push(count));
  edu.device.interrupts.connect('msi', [signalled]);
  edu.raise(0x5);
  await until(() => counts.length > 0, 'the callback was called');
  t.is(edu.status, 0x5);
  edu.raise(0x2);
  await until(() => counts.length > 1, 'the callback was called again: a message needs no unmasking');
  t.deepEqual(counts, [1n, 1n]);
});

testWith({ edu: 1 }, `counts each of ${MESSAGES} messages`, async (t, { edu: [bdf = ''] }) => {
  const edu = await InterruptingEdu.open(t, bdf);
  const signalled = event(t);
  let [sum, calls] = [0n, 0];
  signalled.onSignal((count) => {
    sum += count;
    calls++;
  });
  edu.device.interrupts.connect('msi', [signalled]);
  for (let sent = 0; sent < MESSAGES; sent++) {
    edu.raise();
    // As on every machine, the interrupt controller would merge a second message that arrives before the processor has
    // taken the first.
    for (const deadline = Date.now() + 5000; counted(signalled) !== BigInt((sent % BURST) + 1);) {
      if (Date.now() > deadline) throw new Error(`message ${sent} does not arrive: the count is ${counted(signalled)}`);
    }
    edu.acknowledge();
    if ((sent + 1) % BURST === 0) await until(() => sum === BigInt(sent + 1), `${sent + 1} messages are counted`);
  }
  t.is(sum, BigInt(MESSAGES));
  t.is(calls, MESSAGES / BURST);
});

testWith({ edu: 1 }, 'the pin masks itself, and interrupts again once unmasked', async (t, { edu: [bdf = ''] }) => {
  const edu = await InterruptingEdu.open(t, bdf);
  const { interrupts } = edu.device;
  const signalled = event(t);
  interrupts.connect('intx', [signalled]);
  edu.raise(1);
  t.is(await arrives(signalled), 1n);
  edu.acknowledge();
  edu.raise(2);
  await silent(t, signalled, 'masked by itself');
  interrupts.unmaskIntx();
  t.is(await arrives(signalled), 1n, 'still asserted when it is unmasked');
  edu.acknowledge();
  interrupts.unmaskIntx();
  await silent(t, signalled, 'not asserted any more');
  interrupts.maskIntx();
  edu.raise(4);
  await silent(t, signalled, 'masked by the test');
  interrupts.unmaskIntx();
  t.is(await arrives(signalled), 1n);
});

testWith({ edu: 1 }, 'a pin that is asserted interrupts when it is connected', async (t, { edu: [bdf = ''] }) => {
  const edu = await InterruptingEdu.open(t, bdf);
  const { interrupts } = edu.device;
  const signalled = event(t);
  for (let round = 0; round < 5; round++) {
    edu.raise(1);
    interrupts.connect('intx', [signalled]);
    t.true((await arrives(signalled)) >= 1n);
    edu.acknowledge();
    interrupts.unmaskIntx();
    edu.raise(2);
    await arrives(signalled);
    edu.acknowledge();
    interrupts.disconnect('intx');
  }
});

testWith({ edu: 1 }, 'an event unmasks the pin until it is replaced or removed', async (t, { edu: [bdf = ''] }) => {
  const edu = await InterruptingEdu.open(t, bdf);
  const { interrupts } = edu.device;
  const signalled = event(t);
  const [first, second] = [event(t), event(t)];
  throwsCode(t, () => interrupts.unmaskIntxOn(first), 'ERR_INTERRUPT_SETUP');
  interrupts.connect('intx', [signalled]);
  interrupts.unmaskIntxOn(first);
  edu.raise();
  for (let round = 0; round < 5; round++) {
    t.is(await arrives(signalled), 1n);
    await silent(t, signalled, 'masked');
    first.signal();
  }
  t.is(await arrives(signalled), 1n);
  t.is(first.take(), 0n, 'the kernel has read the count');
  interrupts.unmaskIntxOn(second);
  first.signal();
  await silent(t, signalled, 'the first event has no effect any more');
  second.signal();
  t.is(await arrives(signalled), 1n);
  interrupts.unmaskIntxOn(undefined);
  second.signal();
  await silent(t, signalled, 'no event has an effect');
  interrupts.unmaskIntx();
  t.is(await arrives(signalled), 1n);
});

testWith({ edu: 1 }, "a vector's event can be replaced or removed", async (t, { edu: [bdf = ''] }) => {
  const edu = await InterruptingEdu.open(t, bdf);
  const { interrupts } = edu.device;
  const [first, second] = [event(t), event(t)];
  const raise = (): void => {
    edu.acknowledge();
    edu.raise();
  };
  for (const kind of ['msi', 'intx'] as const) {
    edu.acknowledge();
    interrupts.connect(kind, [first]);
    raise();
    t.is(await arrives(first), 1n);
    interrupts.reconnect(kind, 0, second);
    raise();
    if (kind === 'intx') interrupts.unmaskIntx();
    t.is(await arrives(second), 1n);
    t.is(counted(first), 0n);
    interrupts.reconnect(kind, 0, undefined);
    if (kind === 'intx') edu.acknowledge();
    else raise();
    await silent(t, second, 'the vector does not signal');
    interrupts.reconnect(kind, 0, first);
    raise();
    if (kind === 'intx') interrupts.unmaskIntx();
    t.is(await arrives(first), 1n);
    interrupts.disconnect(kind);
    interrupts.disconnect(kind);
    raise();
    await silent(t, first, 'the kind does not signal');
    await silent(t, second, 'nor does the other event');
  }
  interrupts.connect('msi', [undefined]);
  interrupts.reconnect('msi', 0, first);
  raise();
  t.is(await arrives(first), 1n);
});

testWith(
  { edu: 1 },
  'rejects missing vectors and combinations that exclude each other',
  async (t, { edu: [bdf = ''] }) => {
    const { device } = await InterruptingEdu.open(t, bdf);
    const { interrupts } = device;
    const one = event(t);
    const closed = event(t);
    closed.close();
    const refused = [
      ['ERR_INTERRUPT_UNSUPPORTED', () => interrupts.connect('msix', [one])],
      ['ERR_INTERRUPT_UNSUPPORTED', () => interrupts.connect('msi', [one, one])],
      ['ERR_INTERRUPT_UNSUPPORTED', () => interrupts.reconnect('msi', 1, one)],
      ['ERR_INTERRUPT_SETUP', () => interrupts.reconnect('msi', 0, one)],
      ['ERR_INTERRUPT_SETUP', () => interrupts.maskIntx()],
      ['ERR_INTERRUPT_SETUP', () => interrupts.unmaskIntx()],
      ['ERR_INVALID_ARGUMENT', () => interrupts.connect('msi', [])],
      ['ERR_INVALID_ARGUMENT', () => interrupts.connect('msi', [7 as unknown as EventFd])],
      ['ERR_INVALID_ARGUMENT', () => interrupts.reconnect('msi', -1, one)],
      ['ERR_CLOSED', () => interrupts.connect('msi', [closed])],
    ] as const;
    for (const [code, act] of refused) {
      const error = throwsCode(t, act, code, String(act));
      if (code !== 'ERR_INVALID_ARGUMENT' && code !== 'ERR_CLOSED') t.is(error.bdf, bdf);
    }
    interrupts.connect('intx', [one]);
    t.regex(
      throwsCode(t, () => interrupts.connect('msi', [one]), 'ERR_INTERRUPT_SETUP').message,
      /intx .*Disconnect it first/,
    );
    throwsCode(t, () => interrupts.connect('intx', [one]), 'ERR_INTERRUPT_SETUP');
    // These work together with any other kind.
    interrupts.connect('request', [one]);
    interrupts.disconnect('request');
    interrupts.disconnect('intx');
    interrupts.connect('msi', [one]);
    await device.close();
    // Closing has disconnected them.
    interrupts.disconnect('msi');
    throwsCode(t, () => interrupts.connect('msi', [one]), 'ERR_CLOSED');
  },
);

testWith(
  { nvme: 1 },
  'connects all messages of a table, some without an event, and keeps them over a reset',
  async (t, { nvme: [bdf = ''] }) => {
    const { open } = await rig(t, false);
    const device = await open(bdf);
    const { interrupts } = device;
    const count = interrupts.count('msix');
    t.true(count > 1, `${count} vectors`);
    const events = Array.from({ length: count }, (_, index) => (index % 3 === 0 ? undefined : event(t)));
    interrupts.connect('msix', events);
    await device.reset();
    for (const [vector, one] of events.entries())
      interrupts.reconnect('msix', vector, one === undefined ? event(t) : undefined);
    throwsCode(t, () => interrupts.reconnect('msix', count, undefined), 'ERR_INTERRUPT_UNSUPPORTED');
    interrupts.disconnect('msix');
    interrupts.connect('msix', events.slice(0, 2));
    throwsCode(t, () => interrupts.reconnect('msix', 2, undefined), 'ERR_INTERRUPT_SETUP');
    t.true(events.every((one) => one === undefined || counted(one) === 0n));
  },
);

testWith(
  { edu: 1 },
  'the kernel keeps a closed event, and a device with interrupts closes',
  async (t, { edu: [bdf = ''] }) => {
    const before = [openVfioFiles().length, eventFiles()];
    const { manager, open } = await rig(t, false);
    for (const kind of ['msi', 'intx'] as const) {
      for (let round = 0; round < 20; round++) {
        const device = await open(bdf);
        const [signalled, asked, resample] = [event(t), event(t), event(t)];
        device.interrupts.connect(kind, [signalled]);
        device.interrupts.connect('request', [asked]);
        if (kind === 'intx') device.interrupts.unmaskIntxOn(resample);
        for (const one of [signalled, asked, resample]) one.close();
        if (round % 2 === 0) device.interrupts.reconnect(kind, 0, undefined);
        await device.close();
      }
    }
    await manager.close();
    t.deepEqual([openVfioFiles().length, eventFiles()], before);
  },
);
