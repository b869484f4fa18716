/**
 * Interrupts from a device to a guest that sets them up through config space and BARs.
 */
import test from 'ava';
import { MEMORY, command } from './support/guest.ts';
import { Scene } from './support/scene.ts';

/** Command's bit that switches the pin off. */
const PIN_OFF = 0x400;

test('what asserts the pin while the guest has it off interrupts when the guest switches it on', async (t) => {
  const scene = await Scene.create(t);
  const device = scene.simulated();
  const assigned = await scene.assign(device);
  const pin = assigned.interrupts.vector('intx');
  device.raise('intx');
  t.true(pin.fd > 0);
  t.is(pin.event.take(), 1n, 'asserted before anybody took it');
  device.lowerIntx();
  assigned.interrupts.unmaskIntx();

  for (let round = 0; round < 2; round++) {
    await command(assigned, PIN_OFF);
    t.false(pin.enabled);
    device.raise('intx');
    assigned.interrupts.unmaskIntx();
    t.is(pin.event.take(), 0n, 'off');
    await command(assigned, MEMORY);
    t.true(pin.enabled);
    t.is(pin.event.take(), 1n, 'on');
    device.lowerIntx();
    assigned.interrupts.unmaskIntx();
  }

  await command(assigned, PIN_OFF);
  device.raise('intx');
  device.lowerIntx();
  await command(assigned, 0);
  t.is(pin.event.take(), 0n, 'the cause has gone');
});
