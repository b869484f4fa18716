// Interrupts of a simulated device: the rules of VFIO, as vfio-interrupts.ts implements them for a physical one.
import test from 'ava';
import { fstatSync } from 'node:fs';
import type { InterruptKind } from '../../../ts/pci/physical-function.ts';
import { throwsCode } from '../../support/errors.ts';
import {
  CAPABILITY,
  D3_HOT,
  MASTER,
  MEMORY,
  PMCSR,
  command,
  events,
  loud,
  read16,
  region,
  simulated,
  write16,
} from './support.ts';

const KINDS: readonly InterruptKind[] = ['intx', 'msi', 'msix', 'error', 'request'];

test('has as many vectors of a kind as its config space defines', (t) => {
  const { interrupts } = loud(t);
  t.deepEqual(
    KINDS.map((kind) => interrupts.count(kind)),
    [1, 4, 5, 1, 1],
  );
  const bare = simulated(t);
  t.deepEqual(
    KINDS.map((kind) => bare.interrupts.count(kind)),
    [0, 0, 0, 0, 1],
  );
  throwsCode(t, () => bare.interrupts.count('nmi' as never), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => bare.interrupts.count('toString' as never), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => bare.interrupts.disconnect('nmi' as never), 'ERR_INVALID_ARGUMENT');
});

for (const kind of ['msi', 'msix'] as const) {
  test(`${kind}: each vector signals its eventfd, once for each message`, (t) => {
    const device = loud(t);
    const [first, last] = events(t, 2);
    t.false(device.raise(kind), 'not connected');
    device.interrupts.connect(kind, [first, undefined, last]);
    t.true(device.raise(kind));
    t.true(device.raise(kind, 2));
    t.true(device.raise(kind, 2));
    t.false(device.raise(kind, 1), 'silent');
    t.false(device.raise(kind, 3), 'not connected');
    t.is(first.take(), 1n);
    t.is(last?.take(), 2n);
    device.interrupts.disconnect(kind);
    t.false(device.raise(kind));
    t.is(first.take(), 0n);
  });

  test(`${kind}: the eventfd of a vector can be replaced or removed`, (t) => {
    const device = loud(t);
    const [one, other] = events(t, 2);
    throwsCode(t, () => device.interrupts.reconnect(kind, 0, one), 'ERR_INTERRUPT_SETUP');
    device.interrupts.connect(kind, [one, undefined]);
    device.interrupts.reconnect(kind, 0, undefined);
    device.interrupts.reconnect(kind, 1, other);
    t.false(device.raise(kind, 0));
    t.true(device.raise(kind, 1));
    t.is(one.take(), 0n);
    t.is(other?.take(), 1n);
    throwsCode(t, () => device.interrupts.reconnect(kind, 2, one), 'ERR_INTERRUPT_SETUP');
    throwsCode(t, () => device.interrupts.reconnect(kind, 5, one), 'ERR_INTERRUPT_UNSUPPORTED');
    throwsCode(t, () => device.interrupts.reconnect(kind, -1, one), 'ERR_INVALID_ARGUMENT');
  });

  test(`${kind}: messages are DMA`, (t) => {
    const device = loud(t);
    const [event] = events(t, 1);
    device.interrupts.connect(kind, [event]);
    command(device, MEMORY);
    t.false(device.raise(kind));
    command(device, MEMORY | MASTER);
    write16(device.config, PMCSR, D3_HOT);
    t.false(device.raise(kind));
    write16(device.config, PMCSR, 0);
    t.is(event.take(), 0n, 'what was lost stays lost');
    t.true(device.raise(kind));
  });

  test(`${kind}: config space reports it as enabled while it is connected`, (t) => {
    const device = loud(t);
    const [event] = events(t, 1);
    // Power management has 8 bytes, MSI with 64-bit addresses 14.
    const flags = kind === 'msi' ? CAPABILITY + 8n + 2n : CAPABILITY + 8n + 16n + 2n;
    const bit = kind === 'msi' ? 0x0001 : 0x8000;
    const before = read16(device.config, flags);
    t.is(before & bit, 0);
    device.interrupts.connect(kind, [event]);
    t.is(read16(device.config, flags), before | bit);
    write16(device.config, flags, before);
    t.is(read16(device.config, flags), before | bit, 'it is not switched off there');
    device.interrupts.disconnect(kind);
    t.is(read16(device.config, flags), before);
  });
}

test('msix: keeps messages of an unconnected vector pending until it is connected or MSI-X disconnected', (t) => {
  const device = loud(t);
  const [event, other] = events(t, 2);
  // After the table of five entries.
  const pending = (): number => region(device, 0).read32(0x50n);
  t.false(device.raise('msix', 1));
  t.is(pending(), 0, 'MSI-X is off');
  device.interrupts.connect('msix', [event, undefined, undefined]);
  device.raise('msix', 1);
  device.raise('msix', 1);
  device.raise('msix', 2);
  device.raise('msix', 3);
  t.is(pending(), 0b110, 'one past those that are connected has nothing');
  t.is(region(device, 0).read(0x50n, 1)[0], 0b110);
  device.interrupts.reconnect('msix', 1, other);
  t.is(other?.take(), 1n, 'one message');
  t.is(pending(), 0b100);

  command(device, MEMORY);
  device.interrupts.reconnect('msix', 2, event);
  t.is(pending(), 0b100, 'messages are DMA');
  command(device, MEMORY | MASTER);
  t.deepEqual([pending(), event.take()], [0, 1n]);

  device.interrupts.reconnect('msix', 1, undefined);
  for (const forget of [() => device.reset(), () => device.interrupts.disconnect('msix')]) {
    device.raise('msix', 1);
    t.is(pending(), 0b10);
    void forget();
    t.is(pending(), 0);
  }
});

test('connects one of the pin, MSI and MSI-X at a time', (t) => {
  const { interrupts } = loud(t);
  const [event] = events(t, 1);
  for (const kind of ['intx', 'msi', 'msix'] as const) {
    interrupts.connect(kind, [event]);
    for (const other of ['intx', 'msi', 'msix'] as const) {
      const error = throwsCode(t, () => interrupts.connect(other, [event]), 'ERR_INTERRUPT_SETUP');
      t.regex(error.message, new RegExp(`^${kind} of 0000:00:06\\.0 is connected`));
    }
    t.notThrows(() => interrupts.connect('request', [event]));
    throwsCode(t, () => interrupts.connect('request', [event]), 'ERR_INTERRUPT_SETUP');
    interrupts.disconnect('request');
    interrupts.disconnect('error');
    interrupts.disconnect(kind);
    t.notThrows(() => interrupts.disconnect(kind), 'nothing to do');
  }
});

test('rejects an invalid connection, and connects nothing', (t) => {
  const device = loud(t);
  const [event, closed] = events(t, 2);
  closed?.close();
  throwsCode(
    t,
    () => device.interrupts.connect('msi', [event, event, event, event, event]),
    'ERR_INTERRUPT_UNSUPPORTED',
  );
  throwsCode(t, () => simulated(t).interrupts.connect('intx', [event]), 'ERR_INTERRUPT_UNSUPPORTED');
  throwsCode(t, () => device.interrupts.connect('msi', []), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => device.interrupts.connect('msi', [event, 3 as never]), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => device.interrupts.connect('msi', [event, closed]), 'ERR_CLOSED');
  t.false(device.raise('msi'));
  t.notThrows(() => device.interrupts.connect('msi', [event]));
  throwsCode(t, () => device.raise('msi', 4), 'ERR_INTERRUPT_UNSUPPORTED');
  throwsCode(t, () => device.raise('msi', 0.5), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => simulated(t).raise('intx'), 'ERR_INTERRUPT_UNSUPPORTED');
});

test('signals an eventfd that was closed after connecting', (t) => {
  const device = loud(t);
  const [event] = events(t, 1);
  device.interrupts.connect('msi', [event]);
  event.close();
  t.true(device.raise('msi'));
  t.notThrows(() => device.interrupts.disconnect('msi'));
});

test('closes the descriptor of a closed eventfd when no device holds it', (t) => {
  const [device, other] = [loud(t), loud(t)];
  const [event] = events(t, 1);
  const { fd } = event;
  for (const { interrupts } of [device, other]) interrupts.connect('msi', [event]);
  device.interrupts.disconnect('msi');
  event.close();
  t.notThrows(() => fstatSync(fd));
  other.interrupts.disconnect('msi');
  t.throws(() => fstatSync(fd), { code: 'EBADF' });
});

test('keeps the maximum count of an eventfd', (t) => {
  const device = loud(t);
  const [event] = events(t, 1);
  device.interrupts.connect('msi', [event]);
  event.signal((1n << 64n) - 2n);
  t.true(device.raise('msi'));
  t.is(event.take(), (1n << 64n) - 2n);
});

test('signals error and request in any state of the device', (t) => {
  const device = loud(t);
  const [error, request] = events(t, 2);
  device.interrupts.connect('error', [error]);
  device.interrupts.connect('request', [request]);
  command(device, 0);
  write16(device.config, PMCSR, D3_HOT);
  t.true(device.raise('error'));
  t.true(device.raise('request'));
  t.deepEqual([error.take(), request?.take()], [1n, 1n]);
});
