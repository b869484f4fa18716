/**
 * The serial port of the example VMM, as Linux's driver uses it, and register by register.
 */
import test from 'ava';
import fc from 'fast-check';
import { FULL_INPUT, SERIAL_PORT } from '../../examples/vmm/devices/serial.ts';
import { until } from '../support/until.ts';
import * as driver from './support/serial-port.ts';
import {
  DLL,
  DLM,
  FCR,
  IER,
  IIR,
  LCR,
  LOOP,
  LSR,
  MCR,
  MSR,
  Port,
  READY,
  RX,
  SCR,
  THRI,
  TX,
} from './support/serial-port.ts';

const letters = (count: number): number[] => Array.from({ length: count }, (_, index) => 0x20 + (index % 95));

/** A port whose writes end when the test releases them. */
function slowPort(): { port: Port; release: () => Promise<void> } {
  const waiting: (() => void)[] = [];
  const port = new Port(() => new Promise((resolve) => void waiting.push(resolve)));
  const release = async (): Promise<void> => {
    waiting.shift()?.();
    await new Promise(setImmediate);
  };
  return { port, release };
}

test('the probe of Linux finds a 16550A and leaves its registers as they were', (t) => {
  const port = new Port();
  t.is(driver.probe(port), '16550A with 16 bytes');
  t.deepEqual(
    [IER, LCR, MCR].map((register) => port.in(register)),
    [0, 0, 0],
  );
  t.deepEqual(port.sent, []);
  t.deepEqual(port.levels, []);
});

test('the start-up of Linux finds no bug', (t) => {
  const port = new Port();
  driver.probe(port);
  t.deepEqual(driver.startUp(port), []);
  t.false(port.isHigh);
});

test('the driver of Linux sends and receives by interrupts', async (t) => {
  const port = new Port();
  driver.startUp(port);
  const linux = new driver.Driver(port);
  linux.send(letters(1000));
  const input = letters(300).toReversed();
  for (let at = 0; at < input.length; at += 7) port.receive(...input.slice(at, at + 7));
  await until(() => port.sent.length === 1000 && linux.received.length === 300, 'all bytes arrive');
  t.deepEqual(port.sent, letters(1000));
  t.deepEqual(linux.received, input);
  t.false(port.isHigh);
  port.receive(65);
  await until(() => linux.received.length === 301, 'a later byte interrupts');
  linux.send([66]);
  await until(() => port.sent.length === 1001, 'a later transmission interrupts');
});

test('the driver of Linux waits for a slow reader', async (t) => {
  const { port, release } = slowPort();
  driver.startUp(port);
  const linux = new driver.Driver(port);
  linux.send(letters(40));
  const sent: number[] = [];
  for (let count = 0; count < 48; count++) {
    await release();
    sent.push(port.sent.length);
  }
  t.deepEqual([...new Set(sent)], [16, 32, 40]);
  t.deepEqual(port.sent, letters(40));
});

test('transmits the bytes of a string instruction, which reads no status', (t) => {
  const port = new Port();
  for (const byte of letters(5000)) port.out(TX, byte);
  t.deepEqual(port.sent, letters(5000));
});

test('the transmitter is full until all writes have ended, and interrupts then', async (t) => {
  const { port, release } = slowPort();
  port.out(MCR, READY);
  t.is(port.in(LSR) & 0x60, 0x60);
  port.out(TX, 65);
  port.out(TX, 66);
  port.out(IER, THRI);
  t.false(port.isHigh);
  await release();
  t.is(port.in(LSR) & 0x60, 0);
  t.false(port.isHigh);
  await release();
  t.is(port.in(LSR) & 0x60, 0x60);
  t.true(port.isHigh);
  t.is(port.in(IIR), 0x02);
  t.false(port.isHigh);
});

test('drops bytes of a driver that does not wait for a slow reader', async (t) => {
  const { port, release } = slowPort();
  for (const byte of letters(1000)) port.out(TX, byte);
  t.deepEqual(port.sent, letters(16));
  for (let count = 0; count < 16; count++) await release();
  t.is(port.in(LSR) & 0x60, 0x60);
  port.out(TX, 65);
  t.deepEqual(port.sent, [...letters(16), 65]);
});

test('a write that ends after the disposal does not set the line', async (t) => {
  const { port, release } = slowPort();
  port.out(MCR, READY);
  port.out(TX, 65);
  port.out(IER, THRI);
  port.serial[Symbol.dispose]();
  await release();
  t.is(port.in(LSR) & 0x60, 0x60);
  t.deepEqual(port.levels, []);
});

test('each transmission is another edge, also if the driver does not identify the interrupt', (t) => {
  const port = new Port();
  port.out(MCR, READY);
  port.out(IER, THRI);
  port.out(TX, 65);
  port.out(TX, 66);
  t.deepEqual(port.levels, [true, false, true, false, true]);
});

test('identification ends the interrupt of the transmitter, and enabling it starts another one', (t) => {
  const port = new Port();
  port.out(IER, THRI);
  t.is(port.in(IIR), 0x02);
  t.is(port.in(IIR), 0x01);
  port.out(IER, THRI);
  t.is(port.in(IIR), 0x01);
  port.out(IER, 0);
  port.out(IER, THRI);
  t.is(port.in(IIR), 0x02);
});

test('the receiver interrupts at its trigger level, and by timeout below it', (t) => {
  for (const [index, level] of [1, 4, 8, 14].entries()) {
    const port = new Port();
    port.out(FCR, 1 | (index << 6));
    port.out(IER, 1);
    port.receive(...letters(level - 1));
    t.is(port.in(IIR), level === 1 ? 0xc1 : 0xcc);
    port.receive(65);
    t.is(port.in(IIR), 0xc4);
    for (const byte of [...letters(level - 1), 65]) t.is(port.in(RX), byte);
    t.is(port.in(IIR), 0xc1);
  }
});

test('without FIFOs the receiver has one byte, and the others wait', (t) => {
  const port = new Port();
  port.out(IER, 1);
  port.receive(1, 2);
  port.receive(3);
  for (const byte of [1, 2, 3]) {
    t.is(port.in(LSR), 0x61);
    t.is(port.in(IIR), 0x04);
    t.is(port.in(RX), byte);
  }
  t.is(port.in(LSR), 0x60);
  t.is(port.in(RX), 0);
});

test('the sender of much input waits until the guest has received some', async (t) => {
  const port = new Port();
  t.is(port.serial.receive(new Uint8Array(FULL_INPUT)), undefined, 'the receiver has one byte of it');
  let hasRoom = false;
  void port.serial.receive(Uint8Array.of(1))?.then(() => (hasRoom = true));
  await new Promise(setImmediate);
  t.false(hasRoom);
  port.in(RX);
  await new Promise(setImmediate);
  t.true(hasRoom);
  const rest = Array.from({ length: FULL_INPUT }, () => port.in(RX));
  t.is(rest.lastIndexOf(0), FULL_INPUT - 2);
  t.deepEqual([rest.at(-1), port.in(LSR)], [1, 0x60]);
});

test('a cleared receiver loses its own bytes, and those that wait come next', (t) => {
  const port = new Port();
  port.out(FCR, 1);
  port.receive(...letters(20));
  port.out(FCR, 3);
  t.deepEqual(
    [RX, RX, RX, RX].map((register) => port.in(register)),
    letters(20).slice(16),
  );
  t.is(port.in(LSR), 0x60);
  port.receive(1, 2);
  port.out(FCR, 0); // switching FIFOs clears them
  t.is(port.in(LSR), 0x60);
  port.receive(3);
  port.out(FCR, 2); // without its first bit, the register sets nothing
  t.is(port.in(RX), 3);
});

test('loopback receives what it transmits, and the terminal does not', (t) => {
  const port = new Port();
  port.out(FCR, 1);
  port.out(MCR, LOOP);
  port.receive(99);
  port.out(TX, 65);
  port.out(TX, 66);
  t.deepEqual([port.in(RX), port.in(RX), port.in(LSR)], [65, 66, 0x60]);
  t.deepEqual(port.sent, []);
  port.out(MCR, 0);
  t.is(port.in(RX), 99);
});

test('an overrun in loopback is the most urgent interrupt, until line status is read', (t) => {
  const port = new Port();
  port.out(IER, 0x0f);
  port.out(MCR, LOOP);
  port.out(TX, 65);
  t.is(port.in(IIR), 0x04);
  port.out(TX, 66);
  port.out(IER, 0x0b);
  t.is(port.in(IIR), 0x04, 'it is not enabled');
  port.out(IER, 0x0f);
  t.is(port.in(IIR), 0x06);
  t.is(port.in(LSR), 0x63);
  t.is(port.in(LSR), 0x61);
  t.is(port.in(RX), 66);
  t.is(port.in(IIR), 0x02);
  t.is(port.in(IIR), 0x00);
  t.is(port.in(MSR) & 0x0f, 0x0b);
  t.is(port.in(IIR), 0x01);
  port.out(FCR, 1);
  for (const byte of letters(17)) port.out(TX, byte);
  t.is(port.in(LSR), 0x63);
  t.deepEqual(
    letters(16).map(() => port.in(RX)),
    letters(16),
  );
  t.is(port.in(LSR), 0x60);
});

test('modem status records changes of its lines until it is read', (t) => {
  const port = new Port();
  t.is(port.in(MSR), 0xb0);
  port.out(MCR, LOOP);
  t.is(port.in(MSR), 0x0b);
  t.is(port.in(MSR), 0x00);
  const lines = [0x01, 0x02, 0x04, 0x08].map((output) => {
    port.out(MCR, LOOP | output);
    port.in(MSR);
    return port.in(MSR);
  });
  t.deepEqual(lines, [0x20, 0x10, 0x40, 0x80]);
  port.out(MCR, LOOP | 0x04);
  port.in(MSR);
  port.out(MCR, LOOP);
  t.is(port.in(MSR), 0x04, 'the end of a ring');
  for (const output of [0x01, 0x02, 0]) port.out(MCR, LOOP | output);
  t.is(port.in(MSR), 0x03, 'all changes since the last read');
  port.out(MCR, LOOP | 0x04);
  t.is(port.in(MSR), 0x40, 'its begin is not recorded');
});

test('the interrupt reaches the line while the second output is on, and not in loopback', (t) => {
  const port = new Port();
  port.out(IER, 1);
  port.receive(65);
  t.false(port.isHigh);
  port.out(MCR, 0x08);
  t.true(port.isHigh);
  port.out(MCR, 0x08 | LOOP);
  t.false(port.isHigh);
  port.out(MCR, 0x08);
  t.true(port.isHigh);
  port.out(MCR, 0);
  t.false(port.isHigh);
});

test('the divisor and the scratch register keep their values, and transmit nothing', (t) => {
  const port = new Port();
  port.out(LCR, 0x83);
  port.out(DLL, 0x34);
  port.out(DLM, 0x12);
  port.out(SCR, 0xa5);
  port.receive(65);
  t.deepEqual(
    [DLL, DLM, SCR, LCR].map((register) => port.in(register)),
    [0x34, 0x12, 0xa5, 0x83],
  );
  port.out(LCR, 0x03);
  t.is(port.in(IER), 0);
  t.is(port.in(RX), 65);
  t.deepEqual(port.sent, []);
});

test('a wider access reaches the register of its first byte', (t) => {
  const port = new Port();
  port.serial.write(SERIAL_PORT + SCR, 4, 0x1234_5678);
  port.serial.write(SERIAL_PORT + TX, 2, 0x4241);
  t.is(port.in(SCR), 0x78);
  t.is(port.text, 'A');
});

test('the level of the line is that of the identification, after any accesses', (t) => {
  const access = fc.tuple(fc.constantFrom('in', 'out', 'receive'), fc.nat(7), fc.nat(255));
  fc.assert(
    fc.property(fc.array(access, { maxLength: 60 }), (accesses) => {
      const port = new Port();
      for (const [kind, register, value] of accesses) {
        if (kind === 'in') port.in(register);
        else if (kind === 'out') port.out(register, value);
        else port.receive(value);
        const before = port.isHigh;
        const isConnected = (port.in(MCR) & (0x08 | LOOP)) === 0x08;
        t.is(before, isConnected && (port.in(IIR) & 1) === 0);
      }
      t.true(
        port.levels.every((level, index) => level === (index % 2 === 0)),
        'each change is one call',
      );
    }),
  );
});
