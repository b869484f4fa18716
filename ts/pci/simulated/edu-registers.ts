/**
 * The registers and the DMA engine of QEMU's teaching device `edu`. Source: QEMU, docs/specs/edu.rst.
 */
import { hex } from '../../address-range.ts';
import { PeerDmaError } from '../../errors.ts';
import type { SimulatedDma, SimulatedRegisters } from './options.ts';

/** Bytes of BAR 0. @internal */
export const EDU_REGISTERS_LENGTH: bigint = 1n << 20n;
/** @internal */
export const EDU_IDS = { vendor: 0x1234, device: 0x11e8, revision: 0x10, class: 0x00ff00 } as const;

const IDENTIFICATION = 0x00n;
const LIVENESS = 0x04n;
const FACTORIAL = 0x08n;
const STATUS = 0x20n;
const INTERRUPT_STATUS = 0x24n;
const INTERRUPT_RAISE = 0x60n;
const INTERRUPT_ACKNOWLEDGE = 0x64n;
const DMA_SOURCE = 0x80n;
const DMA_DESTINATION = 0x88n;
const DMA_COUNT = 0x90n;
const DMA_COMMAND = 0x98n;

/** Version 1.0 and the constant `ed`. */
const IDENTITY = 0x010000edn;
/** Status: interrupt when a factorial is computed. */
const STATUS_INTERRUPT = 0x80n;
/** Interrupt status: factorial, transfer. */
const INTERRUPT_FACTORIAL = 0x1n;
const INTERRUPT_DMA = 0x100n;
const COMMAND_START = 0x1n;
const COMMAND_FROM_DEVICE = 0x2n;
const COMMAND_INTERRUPT = 0x4n;

/** Address and length of the device's own buffer, as the engine addresses it. */
const BUFFER = 0x40000n;
const BUFFER_LENGTH = 4096n;

/** The first factorial that is a multiple of 2^32, as are all later ones. */
const FIRST_ZERO_FACTORIAL = 34n;

/** The device's connection to interrupts and DMA. @internal */
export interface EduBus extends SimulatedDma {
  /** Interrupts by message if MSI is connected, otherwise by the pin. The pin stays asserted until it is lowered. */
  raise(): void;
  lower(): void;
  /** A transfer faulted. */
  fault(error: PeerDmaError): void;
}

/** Computes factorials and transfers synchronously, during the register write. @internal */
export class EduRegisters implements SimulatedRegisters {
  readonly #bdf: string;
  readonly #bus: EduBus;
  readonly #buffer = new Uint8Array(Number(BUFFER_LENGTH));
  #liveness = 0n;
  #factorial = 0n;
  #status = 0n;
  #interrupts = 0n;
  readonly #dma = new Map<bigint, bigint>();

  constructor(bdf: string, bus: EduBus) {
    this.#bdf = bdf;
    this.#bus = bus;
  }

  read(offset: bigint, length: number): Uint8Array {
    const bytes = new DataView(new ArrayBuffer(8));
    bytes.setBigUint64(0, this.#isValidAccess(offset, length) ? this.#load(offset) : ~0n, true);
    return new Uint8Array(bytes.buffer, 0, length);
  }

  write(offset: bigint, bytes: Uint8Array): void {
    if (!this.#isValidAccess(offset, bytes.length)) return;
    let value = 0n;
    for (const byte of bytes.toReversed()) value = (value << 8n) | BigInt(byte);
    this.#store(offset, value);
  }

  reset(): void {
    this.#buffer.fill(0);
    this.#liveness = this.#factorial = this.#status = this.#interrupts = 0n;
    this.#dma.clear();
  }

  save(): Uint8Array {
    const registers = [DMA_SOURCE, DMA_DESTINATION, DMA_COUNT, DMA_COMMAND].map((at) => this.#dma.get(at) ?? 0n);
    const words = [this.#liveness, this.#factorial, this.#status, this.#interrupts, ...registers];
    return Buffer.concat([new Uint8Array(BigUint64Array.from(words).buffer), this.#buffer]);
  }

  load(state: Uint8Array): void {
    const bytes = Buffer.from(state);
    const word = (index: number): bigint => bytes.readBigUInt64LE(8 * index);
    [this.#liveness, this.#factorial, this.#status, this.#interrupts] = [word(0), word(1), word(2), word(3)];
    for (const [index, at] of [DMA_SOURCE, DMA_DESTINATION, DMA_COUNT, DMA_COMMAND].entries()) {
      this.#dma.set(at, word(4 + index));
    }
    this.#buffer.set(bytes.subarray(8 * 8));
  }

  /** Whether the register supports that width: 4 bytes, and 8 for the 64-bit registers of the DMA engine. */
  #isValidAccess(offset: bigint, length: number): boolean {
    return length === 4 || (length === 8 && offset >= DMA_SOURCE);
  }

  #load(offset: bigint): bigint {
    switch (offset) {
      case IDENTIFICATION:
        return IDENTITY;
      case LIVENESS:
        return this.#liveness;
      case FACTORIAL:
        return this.#factorial;
      case STATUS:
        return this.#status;
      case INTERRUPT_STATUS:
        return this.#interrupts;
      case DMA_SOURCE:
      case DMA_DESTINATION:
      case DMA_COUNT:
      case DMA_COMMAND:
        return this.#dma.get(offset) ?? 0n;
      default:
        return ~0n;
    }
  }

  #store(offset: bigint, value: bigint): void {
    switch (offset) {
      case LIVENESS:
        this.#liveness = BigInt.asUintN(32, ~value);
        break;
      case FACTORIAL:
        this.#factorial = factorial(value);
        if ((this.#status & STATUS_INTERRUPT) !== 0n) this.#raise(INTERRUPT_FACTORIAL);
        break;
      case STATUS:
        this.#status = value & STATUS_INTERRUPT;
        break;
      case INTERRUPT_RAISE:
        this.#raise(value);
        break;
      case INTERRUPT_ACKNOWLEDGE:
        this.#interrupts &= ~value;
        if (this.#interrupts === 0n) this.#bus.lower();
        break;
      case DMA_SOURCE:
      case DMA_DESTINATION:
      case DMA_COUNT:
        this.#dma.set(offset, value);
        break;
      case DMA_COMMAND:
        if ((value & COMMAND_START) !== 0n) this.#start(value);
        break;
      default:
    }
  }

  #raise(interrupts: bigint): void {
    this.#interrupts |= interrupts;
    if (this.#interrupts !== 0n) this.#bus.raise();
  }

  #start(command: bigint): void {
    try {
      this.#transfer((command & COMMAND_FROM_DEVICE) !== 0n);
    } catch (error) {
      // The device does not detect the fault.
      if (!(error instanceof PeerDmaError && error.code === 'ERR_DMA_FAULT')) throw error;
      this.#bus.fault(error);
    }
    this.#dma.set(DMA_COMMAND, command & ~COMMAND_START);
    if ((command & COMMAND_INTERRUPT) !== 0n) this.#raise(INTERRUPT_DMA);
  }

  #transfer(fromDevice: boolean): void {
    const [source, destination, count] = [DMA_SOURCE, DMA_DESTINATION, DMA_COUNT].map((at) => this.#dma.get(at) ?? 0n);
    if (source === undefined || destination === undefined || count === undefined) return;
    const own = (fromDevice ? source : destination) - BUFFER;
    if (own < 0n || own + count > BUFFER_LENGTH) {
      const buffer = `the buffer of ${this.#bdf}, ${hex(BUFFER)}..${hex(BUFFER + BUFFER_LENGTH)}`;
      const text = `${hex(count)} bytes at ${hex(own + BUFFER)} are not within ${buffer}`;
      throw new PeerDmaError('ERR_DMA_FAULT', text, { bdf: this.#bdf });
    }
    const [at, length] = [Number(own), Number(count)];
    if (fromDevice) this.#bus.write(destination, this.#buffer.slice(at, at + length));
    else this.#buffer.set(this.#bus.read(source, length), at);
  }
}

/** Returns the factorial modulo 2^32. */
function factorial(of: bigint): bigint {
  if (of >= FIRST_ZERO_FACTORIAL) return 0n;
  let product = 1n;
  for (let factor = 2n; factor <= of; factor++) product = BigInt.asUintN(32, product * factor);
  return product;
}
