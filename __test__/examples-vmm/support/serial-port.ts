/**
 * A serial port with its terminal, and Linux's driver in short.
 *
 * The driver has the probe, the start-up and the interrupt handler of drivers/tty/serial/8250/8250_port.c.
 */
import { SERIAL_PORT, Serial, type SerialOptions } from '../../../examples/vmm/devices/serial.ts';

/** Offsets of registers, as Linux names them (include/uapi/linux/serial_reg.h). */
export const [RX, TX, DLL, IER, DLM, IIR, FCR, LCR, MCR, LSR, MSR, SCR] = [0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 7] as const;
export const THRI = 0x02;
export const NO_INTERRUPT = 0x01;
export const LOOP = 0x10;
/** Modem control: data terminal ready, request to send, and the output that connects the interrupt. */
export const READY = 0x0b;
export const THRE = 0x20;

/** The port, its terminal and its line. */
export class Port {
  readonly serial: Serial;
  /** The bytes that it has transmitted. */
  readonly sent: number[] = [];
  /** The levels of its line, one for each change. */
  readonly levels: boolean[] = [];
  /** The driver's handler of the rising edge. */
  onInterrupt: () => void = () => {};

  constructor(write: SerialOptions['write'] = () => {}) {
    const set = (high: boolean): void => {
      this.levels.push(high);
      if (high) this.onInterrupt();
    };
    this.serial = new Serial({
      line: { set },
      write: (bytes) => {
        this.sent.push(...bytes);
        return write(bytes);
      },
    });
  }

  get isHigh(): boolean {
    return this.levels.at(-1) ?? false;
  }

  in(register: number): number {
    return this.serial.read(SERIAL_PORT + register);
  }

  out(register: number, value: number): void {
    this.serial.write(SERIAL_PORT + register, 1, value);
  }

  receive(...bytes: number[]): void {
    this.serial.receive(Uint8Array.from(bytes));
  }

  get text(): string {
    return String.fromCharCode(...this.sent);
  }
}

/** Identifies the chip, as `autoconfig` and `autoconfig_16550a` do. */
export function probe(port: Port): string {
  const saved = port.in(IER);
  const [off, on] = [0x00, 0x0f].map((value) => {
    port.out(IER, value);
    return port.in(IER) & 0x0f;
  });
  port.out(IER, saved);
  if (off !== 0 || on !== 0x0f) return 'no port: interrupt enable';
  const [modemControl, lineControl] = [port.in(MCR), port.in(LCR)];
  port.out(MCR, LOOP | 0x0a);
  const looped = port.in(MSR) & 0xf0;
  port.out(MCR, modemControl);
  if (looped !== 0x90) return 'no port: loopback';
  port.out(LCR, 0xbf);
  port.out(FCR, 0);
  port.out(LCR, 0);
  port.out(FCR, 1);
  const fifos = port.in(IIR) >> 6;
  if (fifos !== 3) return ['8250', 'unknown', '16550'][fifos] ?? '';
  const variant = variantOf(port);
  port.out(LCR, lineControl);
  port.out(MCR, modemControl);
  clearFifos(port);
  port.in(RX);
  port.out(IER, 0);
  return variant;
}

/** Distinguishes a 16550A from its successors. */
function variantOf(port: Port): string {
  for (const access of [0x80, 0xbf]) {
    port.out(LCR, access);
    if (port.in(IIR) === 0) return '16650';
  }
  port.out(LCR, 0);
  const before = port.in(MCR);
  port.out(LCR, 0xe0);
  if (((port.in(IIR) ^ before) & LOOP) === 0) {
    port.out(LCR, 0);
    port.out(MCR, before ^ LOOP);
    port.out(LCR, 0xe0);
    const changed = port.in(IIR);
    port.out(LCR, 0);
    port.out(MCR, before);
    if (((changed ^ before) & LOOP) !== 0) return 'NS16550A';
  }
  port.out(LCR, 0);
  const levels = [0x00, 0x80].map((access) => {
    port.out(LCR, access);
    port.out(FCR, 0x21);
    const level = port.in(IIR) >> 5;
    port.out(FCR, 1);
    return level;
  });
  port.out(LCR, 0);
  if (levels[0] === 6 && levels[1] === 7) return '16750';
  port.out(IER, 0x40);
  const isXscale = (port.in(IER) & 0x40) !== 0;
  port.out(IER, 0);
  return isXscale ? 'Xscale' : `16550A with ${fifoLength(port)} bytes`;
}

/** Counts the bytes that fit into the receiver, in loopback. */
function fifoLength(port: Port): number {
  port.out(LCR, 0);
  const control = port.in(MCR);
  port.out(FCR, 0x07);
  port.out(MCR, LOOP);
  for (let byte = 0; byte < 256; byte++) port.out(TX, byte);
  let count = 0;
  while ((port.in(LSR) & 1) !== 0 && count < 256) if (port.in(RX) === count) count++;
  port.out(FCR, 1);
  port.out(MCR, control);
  return count;
}

function clearFifos(port: Port): void {
  for (const value of [0x01, 0x07, 0x00]) port.out(FCR, value);
}

/**
 * Starts the port with interrupts, as `serial8250_do_startup` and the first `set_termios` do.
 *
 * @returns the bugs that it finds
 */
export function startUp(port: Port): string[] {
  const bugs: string[] = [];
  clearFifos(port);
  for (const register of [LSR, RX, IIR, MSR]) port.in(register);
  if (port.in(LSR) === 0xff) bugs.push('line status');
  const identified = [1, 2].map(() => {
    port.out(IER, THRI);
    const identification = port.in(IIR);
    port.out(IER, 0);
    return identification & NO_INTERRUPT;
  });
  if (identified[0] === 0 && identified[1] !== 0) bugs.push('THRE');
  port.out(LCR, 0x03);
  port.out(MCR, READY);
  port.out(IER, THRI);
  const [lineStatus, identification] = [port.in(LSR), port.in(IIR)];
  port.out(IER, 0);
  if ((lineStatus & 0x40) !== 0 && (identification & NO_INTERRUPT) !== 0) bugs.push('TXEN');
  for (const register of [LSR, RX, IIR, MSR]) port.in(register);
  port.out(LCR, 0x83);
  port.out(DLL, 1);
  port.out(DLM, 0);
  port.out(LCR, 0x03);
  port.out(FCR, 0x81); // interrupt at 8 bytes
  port.out(IER, 0x05);
  return bugs;
}

/** The driver of a started port. Its interrupts are edges, as those of an ISA device. */
export class Driver {
  readonly received: number[] = [];
  /** The number of interrupts. */
  interrupts = 0;
  readonly #port: Port;
  #queue: number[] = [];

  constructor(port: Port) {
    this.#port = port;
    port.onInterrupt = () => void setImmediate(() => this.#interrupt());
  }

  /** Queues bytes, and lets the interrupts send them. */
  send(bytes: readonly number[]): void {
    this.#queue.push(...bytes);
    this.#port.out(IER, 0x05 | THRI);
  }

  /** As `serial8250_interrupt`: handles causes until there is none. */
  #interrupt(): void {
    this.interrupts++;
    while ((this.#port.in(IIR) & NO_INTERRUPT) === 0) this.#handle();
  }

  #handle(): void {
    const port = this.#port;
    let status = port.in(LSR);
    for (; (status & 1) !== 0; status = port.in(LSR)) this.received.push(port.in(RX));
    port.in(MSR);
    if ((status & THRE) === 0 || (port.in(IER) & THRI) === 0) return;
    for (const byte of this.#queue.splice(0, 16)) port.out(TX, byte);
    if (this.#queue.length === 0) port.out(IER, 0x05);
  }
}
