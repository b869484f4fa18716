/**
 * The serial port of a PC: a 16550A. It transmits at once, whatever the divisor of the baud rate.
 *
 * Source of registers and bits: National Semiconductor, PC16550D datasheet (June 1995), section 8.
 */
import type { InterruptLine, PortHandler } from 'peerdma/kvm';
import { ByteQueue } from './byte-queue.ts';

/** The first port, the number of ports, and the interrupt line of COM1. */
export const SERIAL_PORT = 0x3f8;
export const SERIAL_PORTS = 8;
export const SERIAL_LINE = 4;
/** The number of waiting bytes from which on the sender of input waits. */
export const FULL_INPUT = 0x1_0000;

/** The connections of a serial port. */
export interface SerialOptions {
  readonly line: Pick<InterruptLine, 'set'>;
  /**
   * Transmits bytes. The transmitter is full until the promise resolves, and reports that in line status. It drops the
   * bytes of a driver that does not wait.
   */
  write(bytes: Uint8Array): void | Promise<void>;
}

/** Offsets of the registers. The first two are the divisor if line control enables access to it. */
const DATA = 0;
const INTERRUPT_ENABLE = 1;
const INTERRUPT_IDENTIFICATION = 2;
const FIFO_CONTROL = 2;
const LINE_CONTROL = 3;
const MODEM_CONTROL = 4;
const LINE_STATUS = 5;
const MODEM_STATUS = 6;
const SCRATCH = 7;

/** Interrupt enable. */
const ENABLE_RECEIVED = 0x01;
const ENABLE_TRANSMITTED = 0x02;
const ENABLE_LINE_STATUS = 0x04;
const ENABLE_MODEM_STATUS = 0x08;

/** Interrupt identification. */
const NONE = 0x01;
const IS_LINE_STATUS = 0x06;
const IS_RECEIVED = 0x04;
const IS_TIMEOUT = 0x0c;
const IS_TRANSMITTED = 0x02;
const IS_MODEM_STATUS = 0x00;
const HAS_FIFOS = 0xc0;

/** FIFO control. The two highest bits select the number of bytes at which the receiver interrupts. */
const ENABLE_FIFOS = 0x01;
const CLEAR_RECEIVER = 0x02;
const TRIGGERS = [1, 4, 8, 14] as const;
const FIFO_LENGTH = 16;

/** Line control. */
const DIVISOR_ACCESS = 0x80;

/** Modem control. On a PC, the second output connects the interrupt to its line. */
const DATA_TERMINAL_READY = 0x01;
const REQUEST_TO_SEND = 0x02;
const OUT_1 = 0x04;
const OUT_2 = 0x08;
const LOOPBACK = 0x10;

/** Line status. */
const DATA_READY = 0x01;
const OVERRUN = 0x02;
const TRANSMITTER_EMPTY = 0x60;

/** Modem status: four lines, and their changes since the last read. */
const LINES = 0xf0;
const CHANGES = 0x0f;
const CLEAR_TO_SEND = 0x10;
const DATA_SET_READY = 0x20;
const RING = 0x40;
const CARRIER = 0x80;
/** The lines of a terminal that is always ready. */
const READY = CLEAR_TO_SEND | DATA_SET_READY | CARRIER;
/** The outputs of modem control, and the lines to which loopback connects them. */
const LOOPED_LINES = [
  [DATA_TERMINAL_READY, DATA_SET_READY],
  [REQUEST_TO_SEND, CLEAR_TO_SEND],
  [OUT_1, RING],
  [OUT_2, CARRIER],
] as const;

/** Answers eight ports from a multiple of eight on. A wider access reaches the register of its first byte. */
export class Serial implements PortHandler {
  readonly #options: SerialOptions;
  readonly #divisor = [1, 0];
  #enabled = 0;
  #lineControl = 0;
  #modemControl = 0;
  #modemStatus = READY;
  #scratch = 0;
  #hasFifos = false;
  #trigger = 1;
  /** The bytes in the receiver. */
  #received: number[] = [];
  /** Input that waits for room in the receiver. */
  readonly #input = new ByteQueue();
  /** Resolve the promises of senders that wait. */
  readonly #senders: (() => void)[] = [];
  #isOverrun = false;
  /** The number of writes that have not ended. */
  #unsent = 0;
  /** Whether the transmitter has become empty since the guest last identified that interrupt. */
  #isTransmitted = false;
  #isHigh = false;
  #isConnected = true;

  constructor(options: SerialOptions) {
    this.#options = options;
  }

  /**
   * Receives bytes for the guest. None overruns the receiver: they wait for room.
   *
   * @param bytes are not copied
   * @returns if {@link FULL_INPUT} bytes wait, a promise that resolves when the guest has received some
   */
  receive(bytes: Uint8Array): void | Promise<void> {
    this.#input.push(bytes);
    this.#update();
    if (this.#input.length >= FULL_INPUT) return new Promise((resolve) => void this.#senders.push(resolve));
  }

  /** Disconnects it from its line, which ends with the machine: a write may end later. */
  [Symbol.dispose](): void {
    this.#isConnected = false;
  }

  read(port: number): number {
    const value = this.#load(port % SERIAL_PORTS);
    this.#update();
    return value;
  }

  write(port: number, _width: number, value: number): void {
    this.#store(port % SERIAL_PORTS, value & 0xff);
    this.#update();
  }

  #load(register: number): number {
    if (this.#isDivisor(register)) return this.#divisor[register] ?? 0;
    if (register === DATA) return this.#received.shift() ?? 0;
    if (register === INTERRUPT_ENABLE) return this.#enabled;
    if (register === INTERRUPT_IDENTIFICATION) return this.#identify();
    if (register === LINE_CONTROL) return this.#lineControl;
    if (register === MODEM_CONTROL) return this.#modemControl;
    if (register === LINE_STATUS) return this.#readLineStatus();
    return register === MODEM_STATUS ? this.#readModemStatus() : this.#scratch;
  }

  #store(register: number, value: number): void {
    if (this.#isDivisor(register)) this.#divisor[register] = value;
    else if (register === DATA) this.#transmit(value);
    else if (register === INTERRUPT_ENABLE) this.#enable(value & 0x0f);
    else if (register === FIFO_CONTROL) this.#controlFifos(value);
    else if (register === LINE_CONTROL) this.#lineControl = value;
    else if (register === MODEM_CONTROL) this.#controlModem(value & 0x1f);
    else if (register === SCRATCH) this.#scratch = value;
  }

  /** Fills the receiver, and sets the line to the level that follows from the registers. */
  #update(): void {
    if (!this.#isLooped) {
      this.#received.push(...this.#input.take(this.#capacity - this.#received.length));
      if (this.#input.length < FULL_INPUT) for (const resolve of this.#senders.splice(0)) resolve();
    }
    const isHigh = this.#pending() !== NONE && (this.#modemControl & (OUT_2 | LOOPBACK)) === OUT_2;
    if (isHigh === this.#isHigh || !this.#isConnected) return;
    this.#isHigh = isHigh;
    this.#options.line.set(isHigh);
  }

  /** Returns the most urgent interrupt that is enabled, as the guest identifies it. */
  #pending(): number {
    const isEnabled = (bit: number): boolean => (this.#enabled & bit) !== 0;
    if (isEnabled(ENABLE_LINE_STATUS) && this.#isOverrun) return IS_LINE_STATUS;
    // Without a baud rate, the timeout of a receiver below its trigger level passes at once.
    if (isEnabled(ENABLE_RECEIVED) && this.#received.length > 0)
      return this.#received.length < this.#trigger ? IS_TIMEOUT : IS_RECEIVED;
    if (isEnabled(ENABLE_TRANSMITTED) && this.#isTransmitted) return IS_TRANSMITTED;
    return isEnabled(ENABLE_MODEM_STATUS) && (this.#modemStatus & CHANGES) !== 0 ? IS_MODEM_STATUS : NONE;
  }

  #identify(): number {
    const pending = this.#pending();
    if (pending === IS_TRANSMITTED) this.#isTransmitted = false;
    return pending | (this.#hasFifos ? HAS_FIFOS : 0);
  }

  #readLineStatus(): number {
    const received = (this.#received.length > 0 ? DATA_READY : 0) | (this.#isOverrun ? OVERRUN : 0);
    this.#isOverrun = false;
    return received | (this.#unsent === 0 ? TRANSMITTER_EMPTY : 0);
  }

  #readModemStatus(): number {
    const status = this.#modemStatus;
    this.#modemStatus &= LINES;
    return status;
  }

  #enable(enabled: number): void {
    const isAdded = (enabled & ~this.#enabled & ENABLE_TRANSMITTED) !== 0;
    if (isAdded && this.#unsent === 0) this.#isTransmitted = true;
    this.#enabled = enabled;
  }

  #controlFifos(value: number): void {
    const hasFifos = (value & ENABLE_FIFOS) !== 0;
    if (hasFifos !== this.#hasFifos || (hasFifos && (value & CLEAR_RECEIVER) !== 0)) this.#received = [];
    this.#hasFifos = hasFifos;
    this.#trigger = (hasFifos ? TRIGGERS[value >> 6] : undefined) ?? 1;
  }

  #controlModem(value: number): void {
    this.#modemControl = value;
    const looped = LOOPED_LINES.filter(([output]) => (value & output) !== 0).map(([, line]) => line);
    const lines = this.#isLooped ? looped.reduce((all, line) => all | line, 0) : READY;
    const changed = (lines ^ this.#modemStatus) & LINES;
    const recorded = changed & ~(lines & RING); // of a ring, only its end
    this.#modemStatus = lines | (this.#modemStatus & CHANGES) | (recorded >> 4);
  }

  #transmit(byte: number): void {
    if (this.#unsent >= FIFO_LENGTH) return; // otherwise a guest that does not wait fills the memory of the host
    this.#isTransmitted = false;
    this.#update(); // lowers the line: each time that the transmitter becomes empty is another edge
    this.#unsent++;
    const written = this.#isLooped ? this.#loop(byte) : this.#options.write(Uint8Array.of(byte));
    if (written instanceof Promise) void written.then(() => this.#endWrite());
    else this.#endWrite();
  }

  #endWrite(): void {
    this.#unsent--;
    this.#isTransmitted = this.#unsent === 0;
    this.#update();
  }

  /** Receives a byte that the guest transmits. Without room, a FIFO drops it, and a register replaces its byte. */
  #loop(byte: number): void {
    this.#isOverrun ||= this.#received.length === this.#capacity;
    if (this.#received.length < this.#capacity) this.#received.push(byte);
    else if (!this.#hasFifos) this.#received = [byte];
  }

  #isDivisor(register: number): boolean {
    return register <= INTERRUPT_ENABLE && (this.#lineControl & DIVISOR_ACCESS) !== 0;
  }

  get #isLooped(): boolean {
    return (this.#modemControl & LOOPBACK) !== 0;
  }

  get #capacity(): number {
    return this.#hasFifos ? FIFO_LENGTH : 1;
  }
}
