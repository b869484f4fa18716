/** A PCI function of a guest, as its host bridge accesses it. */
import type { AddressRange } from '../../address-range.ts';
import { readOptions } from '../../arguments.ts';
import { PeerDmaError } from '../../errors.ts';
import type { GuestMemory } from '../../guest/guest-memory.ts';
import type { Registration } from '../../registration.ts';
import { valueText } from '../../value-text.ts';

/**
 * A PCI function for {@link PciHostBridge.add}.
 *
 * {@link AssignedDevice} is one; implement others in TypeScript. A function without memory BARs has `configRead` and
 * `configWrite` only. Methods are called with the function as `this`. An exception of a method reaches the caller of
 * the bridge.
 */
export interface GuestPciFunction {
  /**
   * Reads config space for the guest.
   *
   * The bridge sets the multi-function bit of Header Type (bit 7 of offset 0x0e) in what the guest reads.
   *
   * @param offset bytes from the start of config space, 0 to 4095; a multiple of `size`
   * @param size 1, 2 or 4 bytes
   * @returns the bytes as an unsigned number: all ones past the end of config space
   */
  configRead(offset: number, size: number): number;
  /**
   * Writes config space for the guest.
   *
   * Until a returned promise settles, the bridge makes no further access to the function.
   *
   * @param offset bytes from the start of config space, 0 to 4095; a multiple of `size`
   * @param size 1, 2 or 4 bytes
   * @param value the bytes as an unsigned number
   * @returns a promise if the write takes effect later, or nothing
   */
  configWrite(offset: number, size: number, value: number): void | Promise<void>;
  /**
   * Guest-physical addresses that its memory BARs decode.
   *
   * The bridge reads it when the function is added, and after each config write; with `watchBars`, after each change
   * instead.
   */
  readonly decodedBars?: readonly AddressRange[];
  /**
   * Registers a callback for changes of `decodedBars`.
   *
   * It is required if they change at other times than in a config write of the bridge, for example in a reset.
   *
   * @param changed is called after each change
   * @returns ends the calls by its method `remove`, as a {@link Registration}
   */
  watchBars?(changed: () => void): Pick<Registration, 'remove'>;
  /**
   * Reads a BAR for the guest. Required with `decodedBars`.
   *
   * @param gpa guest-physical address
   * @param length 1 to 4096 bytes, all in one of `decodedBars`
   */
  mmioRead?(gpa: bigint, length: number): Uint8Array;
  /**
   * Writes a BAR for the guest. Required with `decodedBars`.
   *
   * @param gpa guest-physical address
   * @param bytes 1 to 4096, all in one of `decodedBars`; not changed until a returned promise settles
   * @returns a promise if the write takes effect later, as a config write does, or nothing
   */
  mmioWrite?(gpa: bigint, bytes: Uint8Array): void | Promise<void>;
  /** The guest memory that has its BARs, if it is fixed. That of the bridge must be the same. */
  readonly memory?: GuestMemory;
}

/** The members of a function, each read once. @internal */
export type FunctionParts = Pick<GuestPciFunction, (typeof MEMBERS)[number]>;

const MEMBERS = ['configRead', 'configWrite', 'watchBars', 'mmioRead', 'mmioWrite', 'memory'] as const;

/**
 * Reads the methods of a function.
 *
 * @param where guest address of the function, for messages
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a value that is not a function, or lacks methods for its BARs
 * @internal
 */
export function readFunction(func: GuestPciFunction, where: string): FunctionParts {
  const { decodedBars, ...parts } = readOptions(func, [...MEMBERS, 'decodedBars'], `the function at ${where}`);
  const required = ['configRead', 'configWrite'] as const;
  const forBars = decodedBars === undefined ? [] : (['mmioRead', 'mmioWrite'] as const);
  for (const name of [...required, ...forBars]) {
    if (typeof parts[name] === 'function') continue;
    const reason = `its ${name} is not a method, but ${valueText(parts[name])}`;
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `${where}: adding a function failed: ${reason}. Pass an AssignedDevice or a GuestPciFunction.`,
    );
  }
  if (parts.watchBars === undefined || typeof parts.watchBars === 'function') return parts;
  const reason = `its watchBars is not a method, but ${valueText(parts.watchBars)}`;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${where}: adding a function failed: ${reason}. Omit it.`);
}
