// The pin of a simulated device, which is masked after each interrupt, as in the kernel.
import test, { type ExecutionContext } from 'ava';
import { throwsCode } from '../../support/errors.ts';
import { STATUS_INTERRUPT } from '../../../ts/pci/config/registers.ts';
import {
  COMMAND,
  D3_HOT,
  INTX_DISABLE,
  MEMORY,
  PMCSR,
  STATUS,
  command,
  events,
  loud,
  read16,
  write16,
} from './support.ts';

test('masks the pin after an interrupt, and interrupts again when unmasked while asserted', (t) => {
  const device = loud(t);
  const [event] = events(t, 1);
  device.interrupts.connect('intx', [event]);
  command(device, MEMORY); // the pin is not DMA
  t.true(device.raise('intx'));
  t.false(device.raise('intx'), 'masked');
  t.is(event.take(), 1n);
  device.interrupts.unmaskIntx();
  t.is(event.take(), 1n, 'still asserted');
  device.lowerIntx();
  device.interrupts.unmaskIntx();
  t.is(event.take(), 0n);
  t.true(device.raise('intx'));
  t.is(event.take(), 1n);
});

test('Status has the state of the pin, also while it is masked or disabled', (t) => {
  const device = loud(t);
  const isAsserted = (): boolean => (read16(device.config, STATUS) & STATUS_INTERRUPT) !== 0;
  t.false(isAsserted());
  device.raise('intx');
  t.true(isAsserted(), 'not connected');
  command(device, INTX_DISABLE);
  t.true(isAsserted(), 'disabled');
  device.lowerIntx();
  t.false(isAsserted());
  device.raise('intx');
  device.reset();
  t.false(isAsserted(), 'reset');
});

test('defers the interrupt of a pin that is masked, disabled or in a low-power state', (t) => {
  const device = loud(t);
  const [event] = events(t, 1);
  t.false(device.raise('intx'), 'not connected');
  device.interrupts.connect('intx', [event]);
  t.is(event.take(), 1n, 'it was asserted');
  device.interrupts.unmaskIntx();
  t.is(event.take(), 1n);
  device.lowerIntx();
  device.interrupts.unmaskIntx();

  device.interrupts.maskIntx();
  t.false(device.raise('intx'));
  device.interrupts.unmaskIntx();
  t.is(event.take(), 1n);

  command(device, INTX_DISABLE);
  device.interrupts.unmaskIntx();
  t.is(event.take(), 0n);
  command(device, 0);
  t.is(event.take(), 1n);

  write16(device.config, PMCSR, D3_HOT);
  device.interrupts.unmaskIntx();
  t.is(event.take(), 0n);
  write16(device.config, PMCSR, 0);
  t.is(event.take(), 1n);
  t.is(read16(device.config, COMMAND), 0);
});

test('masks the pin while Command disables it, and unmasks it when enabled', (t) => {
  const device = loud(t);
  const [event] = events(t, 1);
  command(device, INTX_DISABLE);
  device.raise('intx');
  device.interrupts.connect('intx', [event]);
  device.interrupts.unmaskIntx();
  t.is(event.take(), 0n, 'connected while it is off');
  command(device, 0);
  t.is(event.take(), 1n);
  command(device, INTX_DISABLE);
  command(device, 0);
  t.is(event.take(), 1n, 'it was not served, and is still asserted');
  command(device, MEMORY);
  t.is(event.take(), 0n, 'it was on before');
});

test('unmasks the pin when it is connected again', (t) => {
  const device = loud(t);
  const [event] = events(t, 1);
  device.interrupts.connect('intx', [event]);
  device.interrupts.maskIntx();
  device.interrupts.disconnect('intx');
  device.raise('intx');
  device.interrupts.connect('intx', [event]);
  t.is(event.take(), 1n);
});

test('rejects masking of an unconnected pin', (t) => {
  const { interrupts } = loud(t);
  const [event] = events(t, 1);
  interrupts.connect('msi', [event]);
  throwsCode(t, () => interrupts.maskIntx(), 'ERR_INTERRUPT_SETUP');
  throwsCode(t, () => interrupts.unmaskIntx(), 'ERR_INTERRUPT_SETUP');
  throwsCode(t, () => interrupts.unmaskIntxOn(event), 'ERR_INTERRUPT_SETUP');
});

/** Waits until the events that are signalled now have been delivered. A later one is delivered afterwards. */
async function delivered(t: ExecutionContext): Promise<void> {
  const [last] = events(t, 1);
  // Listening alone does not keep the process alive.
  const alive = setInterval(() => {}, 1000);
  await new Promise<void>((resolve) => {
    last.onSignal(() => resolve());
    last.signal();
  });
  clearInterval(alive);
}

test('unmasks the pin by an eventfd', async (t) => {
  const device = loud(t);
  const [event, resample, other] = events(t, 3);
  if (resample === undefined || other === undefined) throw new Error('three were made');
  device.interrupts.connect('intx', [event]);
  device.interrupts.unmaskIntxOn(resample);
  device.raise('intx');
  t.is(event.take(), 1n);
  resample.signal();
  await delivered(t);
  t.is(event.take(), 1n, 'unmasked, and still asserted');
  t.is(resample.take(), 0n);
  throwsCode(t, () => device.interrupts.unmaskIntxOn(3 as never), 'ERR_INVALID_ARGUMENT');

  device.interrupts.unmaskIntxOn(other);
  resample.signal();
  await delivered(t);
  t.is(event.take(), 0n, 'another one does that now');
  t.is(resample.take(), 1n);
  other.signal();
  await delivered(t);
  t.is(event.take(), 1n);

  device.interrupts.unmaskIntxOn(undefined);
  other.signal();
  await delivered(t);
  t.is(event.take(), 0n);
  t.is(other.take(), 1n);

  device.interrupts.unmaskIntxOn(resample);
  resample.close();
  t.notThrows(() => device.interrupts.disconnect('intx'), 'its owner has closed it');
  device.interrupts.connect('intx', [event]);
  device.interrupts.unmaskIntxOn(other);
  device.interrupts.disconnect('intx');
  t.is(event.take(), 1n);
  other.signal();
  await delivered(t);
  t.is(other.take(), 1n, 'no listener when the pin is disconnected');
});

test('deasserts the pin at a reset, and keeps interrupts connected', async (t) => {
  const device = loud(t);
  const [event] = events(t, 1);
  device.interrupts.connect('intx', [event]);
  device.raise('intx');
  await device.reset();
  device.interrupts.unmaskIntx();
  t.is(event.take(), 1n);
  t.true(device.raise('intx'));
});
