/**
 * The devices that answer a guest's accesses to ports and to memory without a memory slot.
 */
import { type AddressRange, hex, requireRange } from '../address-range.ts';
import { readable } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { IntervalMap } from '../interval-map.ts';
import { requireNumber } from '../number-types.ts';
import { Registration } from '../registration.ts';
import { valueText } from '../value-text.ts';

/**
 * Answers accesses to ports, for a device of the VMM.
 *
 * The processor waits for the result, also if it is a promise. Other processors and the event loop do not. If a method
 * throws or its promise rejects, the run fails with `ERR_CPU_FAILED`.
 */
export interface PortHandler {
  /**
   * Answers a read.
   *
   * @param port the first port of the access, 0 to 65535
   * @param width bytes: 1, 2 or 4
   * @returns the value; bits beyond the width are dropped
   */
  read(port: number, width: number): number | Promise<number>;
  /**
   * Applies a write.
   *
   * @param port the first port of the access, 0 to 65535
   * @param width bytes: 1, 2 or 4
   * @param value unsigned, of that width
   */
  write(port: number, width: number, value: number): void | Promise<void>;
}

/** Answers accesses to memory without a memory slot, as {@link PortHandler} does for ports. */
export interface MemoryHandler {
  /**
   * Answers a read.
   *
   * @param gpa guest-physical address of the first byte
   * @param length bytes, 1 to 8
   * @returns the bytes. If they are fewer, the others are ones; further ones are dropped
   */
  read(gpa: bigint, length: number): Uint8Array | Promise<Uint8Array>;
  /**
   * Applies a write.
   *
   * @param gpa guest-physical address of the first byte
   * @param bytes 1 to 8. They are valid until the access is answered: copy them to keep them
   */
  write(gpa: bigint, bytes: Uint8Array): void | Promise<void>;
}

/** The number of ports of the processor. */
const PORTS = 0x1_0000;

/** The handlers of ports of a virtual machine. */
export class PortSpace {
  readonly #handlers: (PortHandler | undefined)[] = Array.from({ length: PORTS }, () => undefined);

  /**
   * Adds a handler. An access across its last port is passed to it as a whole.
   *
   * @param first the first port, 0 to 65535
   * @param count the number of ports
   * @returns the registration of the handler
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`; `ERR_OUT_OF_RANGE`; `ERR_OVERLAP` if a port has a handler
   */
  add(first: number, count: number, handler: PortHandler): Registration {
    requirePorts(first, count);
    requireMethods(handler, 'port');
    const taken = this.#handlers.findIndex((one, port) => one !== undefined && port >= first && port < first + count);
    if (taken >= 0) {
      throw new PeerDmaError('ERR_OVERLAP', `port ${hex(BigInt(taken))} has a handler. Remove that one first`);
    }
    this.#handlers.fill(handler, first, first + count);
    return new Registration(() => void this.#handlers.fill(undefined, first, first + count));
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

/** The handlers of memory of a virtual machine. */
export class HandledMemory {
  readonly #entries: IntervalMap<MemoryEntry> = new IntervalMap<MemoryEntry>();

  /**
   * Adds a handler.
   *
   * The processors reach guest memory in the range without it. The handler gets what remains: writes to read-only
   * memory, and accesses to a slot that is being changed.
   *
   * @param range guest-physical addresses
   * @returns the registration of the handler
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`; `ERR_OVERLAP` if some of the range has a handler
   */
  add(range: AddressRange, handler: MemoryHandler): Registration {
    requireRange(range);
    requireMethods(handler, 'memory');
    const taken = this.#entries.firstIn(range);
    if (taken !== undefined) {
      throw new PeerDmaError(
        'ERR_OVERLAP',
        `${range} overlaps ${taken.range}, which has a handler. Remove that one first`,
      );
    }
    const entry = { range, handler };
    this.#entries.insert(entry);
    return new Registration(() => this.#entries.remove(entry));
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
  const valid = readable(`the ${what} handler`, () => {
    if (typeof handler !== 'object' || handler === null) return false;
    return typeof handler.read === 'function' && typeof handler.write === 'function';
  });
  if (valid) return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a ${what} handler is an object with the methods read and write`);
}
