/** Interrupts from a device to a guest that configures them through config space and BARs. */
import test from 'ava';
import { MASTER, MEMORY, barRegister, capability, command, writeBar32 } from './support/guest.ts';
import { Fixture } from './support/fixture.ts';

/** BAR 0 of the devices here, which contains the MSI-X table and the pending bits. */
const REGISTERS = 0xe000_0000n;
const TABLE = REGISTERS + 0x2000n;
const PENDING = REGISTERS + 0x3000n;

/** INTx disable in Command. */
const PIN_OFF = 0x400;

test('interrupts by a pin asserted while disabled, when the guest enables it', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  const pin = assigned.interrupts.vector('intx');
  device.raise('intx');
  t.true(pin.fd > 0);
  t.is(pin.event.take(), 1n, 'asserted before the vector was used');
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

  device.raise('intx');
  await command(assigned, PIN_OFF); // before the VMM uses it
  t.is(pin.event.take(), 0n);
  await command(assigned, 0);
  t.is(pin.event.take(), 1n, 'and it is still asserted');

  await command(assigned, PIN_OFF);
  device.lowerIntx();
  await command(assigned, 0);
  t.is(pin.event.take(), 0n, 'the cause has gone');
});

test('reports as pending the messages of MSI-X entries that the guest has not unmasked', async (t) => {
  const fixture = await Fixture.create(t);
  const device = fixture.simulated();
  const assigned = await fixture.assign(device);
  const control = capability(assigned, 0x11) + 2;
  const mask = (entry: number, masked: boolean): void =>
    void assigned.mmioWrite(TABLE + BigInt(entry * 16 + 12), Uint8Array.of(masked ? 1 : 0, 0, 0, 0));
  const pending = (): number[] => [...assigned.mmioRead(PENDING, 8)];
  await writeBar32(assigned, 0, REGISTERS);
  await command(assigned, MEMORY | MASTER);
  await assigned.configWrite(control, 2, 0xc000); // on, and the function masked
  mask(0, false);
  mask(2, false);
  for (const entry of [0, 1, 3]) device.raise('msix', entry);
  t.deepEqual(pending(), [0b1011, 0, 0, 0, 0, 0, 0, 0]);
  const delivered = (): bigint[] => [0, 1, 2, 3].map((entry) => assigned.interrupts.vector('msix', entry).event.take());
  t.deepEqual(delivered(), [0n, 0n, 0n, 0n]);

  await assigned.configWrite(control, 2, 0x8000);
  t.deepEqual(delivered(), [1n, 0n, 0n, 0n]);
  // The BAR may move meanwhile, and be off.
  await command(assigned, MASTER);
  await assigned.configWrite(barRegister(0), 4, Number(REGISTERS) + 0x10_0000);
  await command(assigned, MEMORY | MASTER);
  t.deepEqual([...assigned.mmioRead(PENDING + 0x10_0000n, 1)], [0b1010]);
  await writeBar32(assigned, 0, REGISTERS);
  mask(3, false);
  t.deepEqual([pending()[0], delivered()], [0b10, [0n, 0n, 0n, 1n]]);

  await assigned.configWrite(control, 2, 0);
  t.is(pending()[0], 0);
  await assigned.configWrite(control, 2, 0x8000);
  mask(1, false);
  t.deepEqual([pending()[0], delivered()], [0, [0n, 0n, 0n, 0n]], 'dropped when MSI-X was disabled');
});
