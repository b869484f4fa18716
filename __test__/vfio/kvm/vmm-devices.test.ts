/**
 * The serial port and the power registers of the example VMM, driven by a small guest.
 */
import test from 'ava';
import { Power, SLEEP_CONTROL_PORT } from '../../../examples/vmm/devices/power.ts';
import { SERIAL_LINE, SERIAL_PORT, SERIAL_PORTS, Serial } from '../../../examples/vmm/devices/serial.ts';
import { until } from '../../support/until.ts';
import { countingGuest } from './support/interrupts.ts';
import { Code } from './support/machine-code.ts';
import { smallGuest } from './support/small-guest.ts';

const LINE_STATUS = SERIAL_PORT + 5;
const POWER_OFF = 0x34n;

test.serial('a string instruction writes to the terminal, and the guest switches itself off', async (t) => {
  const text = 'peer-to-peer '.repeat(9);
  const code = new Code().outString(SERIAL_PORT, text).rax(POWER_OFF).out(SLEEP_CONTROL_PORT).halt();
  const { vm } = await smallGuest(t, code);
  let written = '';
  const write = (bytes: Uint8Array): void => void (written += Buffer.from(bytes).toString());
  vm.ports.add(SERIAL_PORT, SERIAL_PORTS, new Serial({ line: vm.line(SERIAL_LINE), write }));
  new Power((reason) => vm.stop(reason)).addTo(vm.ports);
  t.is(await vm.run(), 'shutdown');
  t.is(written, text);
});

test.serial('a guest that polls line status receives each byte once', async (t) => {
  const code = new Code().rax(0n).in(LINE_STATUS).raw(0x83, 0xe0, 0x01).jumpIfZero(0); // and eax, 1
  const { vm } = await smallGuest(t, code.in(SERIAL_PORT).out(SERIAL_PORT).jump(0));
  let echo = '';
  const write = (bytes: Uint8Array): void => void (echo += Buffer.from(bytes).toString());
  const serial = new Serial({ line: vm.line(SERIAL_LINE), write });
  vm.ports.add(SERIAL_PORT, SERIAL_PORTS, serial);
  const run = vm.run();
  serial.receive(Buffer.from('typed'));
  await until(() => echo === 'typed', 'the first bytes come back');
  serial.receive(Buffer.from(' later'));
  await until(() => echo === 'typed later', 'later bytes come back');
  vm.stop('end');
  t.is(await run, 'end');
});

test.serial('input interrupts the guest until it is read', async (t) => {
  const { vm, counts, run } = await countingGuest(t, SERIAL_LINE);
  const serial = new Serial({ line: vm.line(SERIAL_LINE), write: () => {} });
  serial.write(SERIAL_PORT + 4, 1, 0x08); // connects the interrupt
  serial.write(SERIAL_PORT + 1, 1, 0x01); // when a byte is received
  serial.receive(Uint8Array.of(65));
  await counts(3n); // the line is a level: the handler of this guest reads no byte, and is called again
  t.is(serial.read(SERIAL_PORT), 65);
  vm.stop('end');
  t.is(await run, 'end');
});
