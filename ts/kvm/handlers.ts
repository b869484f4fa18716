/**
 * The devices that answer a guest's accesses to ports and to memory without a memory slot.
 */
import { AddressRange, hex } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import { requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';

/** Answers accesses to ports. A promise makes the processor wait. */
export interface PortHandler {
  /**
   * @param port 0 to 65535
   * @param width bytes: 1, 2 or 4
   * @returns the value; bits beyond the width are dropped
   */
  read(port: number, width: number): number | Promise<number>;
  write(port: number, width: number, value: number): void | Promise<void>;
}

/** Answers accesses to memory. A promise makes the processor wait. */
export interface MemoryHandler {
  /**
   * @param gpa guest-physical address
   * @param length bytes, 1 to 8
   * @returns as many bytes
   */
  read(gpa: bigint, length: number): Uint8Array | Promise<Uint8Array>;
  /** @param bytes 1 to 8; they change after the access */
  write(gpa: bigint, bytes: Uint8Array): void | Promise<void>;
}

/** The number of ports of the processor. */
const PORTS = 0x1_0000;

/** The handlers of ports. */
export class PortSpace {
  readonly #handlers: (PortHandler | undefined)[] = Array.from({ length: PORTS });

  /**
   * Adds a handler.
   *
   * @param first the first port, 0 to 65535
   * @param count the number of ports
   * @returns removes the handler
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`; `ERR_OUT_OF_RANGE`; `ERR_OVERLAP` if a port has a handler
   */
  add(first: number, count: number, handler: PortHandler): () => void {
    requirePorts(first, count);
    requireMethods(handler, 'port');
    const taken = this.#handlers.findIndex((one, port) => one !== undefined && port >= first && port < first + count);
    if (taken >= 0) {
      throw new PeerDmaError('ERR_OVERLAP', `port ${hex(BigInt(taken))} has a handler. Remove that one first`);
    }
    this.#handlers.fill(handler, first, first + count);
    return () => {
      for (let port = first; port < first + count; port++) {
        if (this.#handlers[port] === handler) this.#handlers[port] = undefined;
      }
    };
  }

  /** The handler of a port. @internal */
  at(port: number): PortHandler | undefined {
    return this.#handlers[port];
  }
}

/** A handler with its range. */
interface MemoryEntry {
  readonly range: AddressRange;
  readonly handler: MemoryHandler;
}

/** The handlers of memory. */
export class HandledMemory {
  readonly #entries: IntervalMap<MemoryEntry> = new IntervalMap<MemoryEntry>();

  /**
   * Adds a handler. The processors reach memory that is mapped in the range without it.
   *
   * @param range guest-physical addresses
   * @returns removes the handler
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`; `ERR_OVERLAP` if some of the range has a handler
   */
  add(range: AddressRange, handler: MemoryHandler): () => void {
    const own = AddressRange.of(range.start, range.length);
    requireMethods(handler, 'memory');
    const taken = this.#entries.firstIn(own);
    if (taken !== undefined) {
      throw new PeerDmaError(
        'ERR_OVERLAP',
        `${own} overlaps ${taken.range}, which has a handler. Remove that one first`,
      );
    }
    const entry = { range: own, handler };
    this.#entries.insert(entry);
    return () => {
      if (this.#entries.at(own.start) === entry) this.#entries.remove(entry);
    };
  }

  /** The handler of an address. @internal */
  at(gpa: bigint): MemoryHandler | undefined {
    return this.#entries.at(gpa)?.handler;
  }
}

function requirePorts(first: number, count: number): void {
  requireNumber(first, 'first');
  requireNumber(count, 'count');
  const valid = Number.isInteger(first) && Number.isInteger(count) && first >= 0 && count > 0;
  if (!valid) {
    const text = `ports are given by a first port and a count, not ${valueText(first)} and ${valueText(count)}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
  }
  if (first + count > PORTS) {
    throw new PeerDmaError(
      'ERR_OUT_OF_RANGE',
      `${count} ports from ${hex(BigInt(first))} on pass the last port, 0xffff`,
    );
  }
}

function requireMethods(handler: PortHandler | MemoryHandler, what: string): void {
  const valid = typeof handler === 'object' && handler !== null;
  if (valid && typeof handler.read === 'function' && typeof handler.write === 'function') return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a ${what} handler is an object with the methods read and write`);
}
