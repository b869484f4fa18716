/**
 * Answers the exits of the processors on the event loop, by handlers or from guest memory.
 */
import type { NativeMachine } from '#native';
import { hex } from '../address-range.ts';
import { asError } from '../errors.ts';
import type { MemoryHandler, PortSpace } from './handlers.ts';

/** Kinds of exits, as the native core numbers them. */
const PORT_READ = 1;
const PORT_WRITE = 2;
const MEMORY_READ = 3;
const MEMORY_WRITE = 4;

/** The result of the native core when the event loop is due for a turn. */
const TURN_OVER = -2;

/** The layout of a cell, in words of 32 bits: kind, width, address, data. */
const WORDS = 16;
const WIDTH = 1;
const ADDRESS = 2;
const DATA = 4;
const DATA_BYTES = DATA * 4;
const CELL_BYTES = WORDS * 4;
const MAX_DATA = 8;

/** An access of the guest. @internal */
export interface GuestAccessExit {
  readonly cpu: number;
  readonly isPort: boolean;
  readonly isWrite: boolean;
  readonly address: bigint;
  /** Bytes. */
  readonly width: number;
}

/** A processor that has stopped by itself. @internal */
export interface StoppedExit {
  readonly cpu: number;
  /** The number of the reason in the native core. */
  readonly reason: number;
  readonly detail: number;
  readonly data: bigint;
}

/** @internal */
export interface ExitReceiver {
  /** A handler has failed. The processor waits for an answer that never comes. */
  failed(access: GuestAccessExit, error: Error): void;
  /** Returns whether the access is answered as hardware does: reads are ones, and writes have no effect. */
  unclaimed(access: GuestAccessExit): boolean;
  stopped(exit: StoppedExit): void;
}

/** @internal */
export class ExitLoop {
  /** Counts of exits that reached this loop. */
  readonly counts: { port: number; memory: number; unclaimed: number } = { port: 0, memory: 0, unclaimed: 0 };
  readonly #ports: PortSpace;
  readonly #memory: (gpa: bigint) => MemoryHandler | undefined;
  #receiver: ExitReceiver | undefined;
  #machine: NativeMachine | undefined;
  #words: Uint32Array = new Uint32Array();
  #longs: BigUint64Array = new BigUint64Array();
  /** The data of each cell by its length in bytes, up to 8: an exit allocates no view. */
  #data: readonly (readonly Uint8Array[])[] = [];

  /** @param memory returns the handler of a guest-physical address */
  constructor(ports: PortSpace, memory: (gpa: bigint) => MemoryHandler | undefined) {
    this.#ports = ports;
    this.#memory = memory;
  }

  /** Begins with the exits of a machine. {@link ExitLoop.drain} is the function that it notifies. */
  attach(machine: NativeMachine, receiver: ExitReceiver): void {
    const cells = machine.exitCells();
    this.#machine = machine;
    this.#receiver = receiver;
    this.#words = new Uint32Array(cells);
    this.#longs = new BigUint64Array(cells);
    this.#data = Array.from({ length: cells.byteLength / CELL_BYTES }, (_, cpu) =>
      Array.from({ length: MAX_DATA + 1 }, (_, length) => new Uint8Array(cells, cpu * CELL_BYTES + DATA_BYTES, length)),
    );
  }

  /** Answers the exits that are posted. */
  readonly drain = (): void => {
    const machine = this.#machine;
    if (machine === undefined) return;
    let cpu = machine.nextExit();
    while (cpu >= 0) cpu = this.#answerOrFail(cpu) ? machine.answerExit(cpu) : machine.nextExit();
    if (cpu === TURN_OVER) setImmediate(this.drain);
  };

  /** An exception here would hang the run: the processors wait, and no notification follows. */
  #answerOrFail(cpu: number): boolean {
    try {
      return this.#answer(cpu);
    } catch (thrown) {
      return this.#failed(cpu, cpu * WORDS, thrown);
    }
  }

  /** Returns whether the exit is answered already. */
  #answer(cpu: number): boolean {
    const at = cpu * WORDS;
    const kind = this.#words[at];
    if (kind === PORT_READ || kind === PORT_WRITE) {
      this.counts.port++;
      return this.#port(cpu, at, kind === PORT_WRITE);
    }
    if (kind === MEMORY_READ || kind === MEMORY_WRITE) {
      this.counts.memory++;
      return this.#access(cpu, at, kind === MEMORY_WRITE);
    }
    const reason = this.#words[at + ADDRESS] ?? 0;
    this.#receiver?.stopped({ cpu, reason, detail: this.#words[at + WIDTH] ?? 0, data: this.#long(at) });
    return true;
  }

  #port(cpu: number, at: number, isWrite: boolean): boolean {
    const port = this.#words[at + ADDRESS] ?? 0;
    const width = this.#words[at + WIDTH] ?? 0;
    const handler = this.#ports.at(port);
    if (handler === undefined) return this.#unclaimed(cpu, at, isWrite);
    try {
      const value = isWrite ? handler.write(port, width, this.#words[at + DATA] ?? 0) : handler.read(port, width);
      if (value instanceof Promise) return this.#later(cpu, at, isWrite, value, this.#setPort);
      if (!isWrite) this.#setPort(at, value);
      return true;
    } catch (thrown) {
      return this.#failed(cpu, at, thrown);
    }
  }

  #access(cpu: number, at: number, isWrite: boolean): boolean {
    const gpa = this.#longs[(at + ADDRESS) >> 1] ?? 0n;
    const length = this.#words[at + WIDTH] ?? 0;
    try {
      const handler = this.#memory(gpa);
      if (handler === undefined) return this.#unclaimed(cpu, at, isWrite);
      const value = isWrite ? handler.write(gpa, this.#view(at, length)) : handler.read(gpa, length);
      if (value instanceof Promise) return this.#later(cpu, at, isWrite, value, this.#setBytes);
      if (!isWrite) this.#setBytes(at, value);
      return true;
    } catch (thrown) {
      return this.#failed(cpu, at, thrown);
    }
  }

  /** Answers the exit when a promise is settled. */
  #later<T>(
    cpu: number,
    at: number,
    isWrite: boolean,
    pending: Promise<T>,
    set: (at: number, value: T) => void,
  ): false {
    const answer = (value: T): void => {
      if (!isWrite) set(at, value);
      this.#machine?.answerLater(cpu);
    };
    pending.then(answer).catch((thrown: unknown) => this.#failed(cpu, at, thrown));
    return false;
  }

  #unclaimed(cpu: number, at: number, isWrite: boolean): boolean {
    this.counts.unclaimed++;
    const isAnswered = this.#receiver?.unclaimed(this.#describe(cpu, at)) === true;
    if (isAnswered && !isWrite) this.#view(at).fill(0xff);
    return isAnswered;
  }

  #failed(cpu: number, at: number, thrown: unknown): false {
    const access = this.#describe(cpu, at);
    try {
      this.#receiver?.failed(access, asError(thrown));
    } catch {
      this.#receiver?.failed(access, new Error('its error has no text'));
    }
    return false;
  }

  #describe(cpu: number, at: number): GuestAccessExit {
    const kind = this.#words[at];
    return {
      cpu,
      isPort: kind === PORT_READ || kind === PORT_WRITE,
      isWrite: kind === PORT_WRITE || kind === MEMORY_WRITE,
      address: this.#longs[(at + ADDRESS) >> 1] ?? 0n,
      width: this.#words[at + WIDTH] ?? 0,
    };
  }

  #long(at: number): bigint {
    return this.#longs[(at + DATA) >> 1] ?? 0n;
  }

  #view(at: number, length = MAX_DATA): Uint8Array {
    return this.#data[at / WORDS]?.[length] ?? new Uint8Array();
  }

  readonly #setPort = (at: number, value: unknown): void => {
    if (typeof value !== 'number') throw new TypeError(`a port handler returned ${typeof value}, not a number`);
    this.#words[at + DATA] = value;
  };

  readonly #setBytes = (at: number, value: unknown): void => {
    if (!(value instanceof Uint8Array)) throw new TypeError('a memory handler did not return a Uint8Array');
    const data = this.#view(at);
    data.fill(0xff);
    data.set(value.length > MAX_DATA ? value.subarray(0, MAX_DATA) : value);
  };
}

/** Text of an access for messages. @internal */
export function accessText({ cpu, isPort, isWrite, address, width }: GuestAccessExit): string {
  const what = isPort ? 'port' : 'address';
  const bytes = width === 1 ? '1 byte' : `${width} bytes`;
  return `processor ${cpu}: ${isWrite ? 'write' : 'read'} of ${bytes} at ${what} ${hex(address)}`;
}
