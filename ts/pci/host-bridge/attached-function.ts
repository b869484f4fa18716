/** A function at its address on a host bridge. Its results are checked: it may be an implementation of the caller. */
import { types } from 'node:util';
import { type AddressRange, isRange } from '../../address-range.ts';
import { readArray, readable } from '../../arguments.ts';
import { PeerDmaError } from '../../errors.ts';
import type { GuestMemory } from '../../guest/guest-memory.ts';
import { type Registration, endQuietly } from '../../registration.ts';
import { valueText } from '../../value-text.ts';
import { allOnes } from '../pci-fault.ts';
import type { Pending } from '../pending.ts';
import { type FunctionAddress, addressText } from './function-address.ts';
import { type FunctionParts, type GuestPciFunction, readFunction } from './guest-pci-function.ts';
import { OrderedAccesses } from './ordered-accesses.ts';

/** The place of a function, and what it shares with the others. @internal */
export interface Attachment {
  readonly address: FunctionAddress;
  /** Counts up with each function that is added. */
  readonly order: number;
  /** The guest memory of the bridge, if it has one. */
  readonly memory: GuestMemory | undefined;
  /** Functions of the bridge with a config write in flight. */
  readonly inFlight: Set<OrderedAccesses>;
  /** Called with the addresses that its BARs decode, at first and after each change. */
  readonly onBars: (func: AttachedFunction, ranges: readonly AddressRange[]) => void;
}

/** @internal */
export class AttachedFunction {
  readonly given: GuestPciFunction;
  readonly address: FunctionAddress;
  readonly order: number;
  readonly accesses: OrderedAccesses;
  readonly #parts: FunctionParts;
  readonly #onBars: Attachment['onBars'];
  /** Its calls of `watchBars`. */
  readonly #watch: Pick<Registration, 'remove'> | undefined;
  #attached = false;

  /** @throws {PeerDmaError} as {@link readFunction}; `ERR_INVALID_ARGUMENT` for invalid BARs */
  constructor(given: GuestPciFunction, { address, order, memory, inFlight, onBars }: Attachment) {
    this.given = given;
    this.address = address;
    this.order = order;
    this.accesses = new OrderedAccesses(inFlight);
    this.#parts = readFunction(given, addressText(address));
    this.#onBars = onBars;
    const { watchBars, memory: own = memory } = this.#parts;
    if (memory !== undefined && own !== memory) throw otherMemory(address);
    this.#decodedBars(); // rejects invalid ones before the function is watched
    if (watchBars !== undefined) this.#watch = this.#startWatch(watchBars);
    this.#attached = true;
    try {
      onBars(this, this.#decodedBars());
    } catch (error) {
      endQuietly(() => this.detach());
      throw error;
    }
  }

  /** Whether it is still at its address. An access that has waited may find that it is not. */
  get attached(): boolean {
    return this.#attached;
  }

  /**
   * Removes it from its address. It has no BARs for the bridge from then on.
   *
   * @throws the error of the function, which reports changes to nobody then
   */
  detach(): void {
    this.#attached = false;
    this.#onBars(this, []);
    this.#watch?.remove();
  }

  /** @param offset a multiple of `size`, which is 1, 2 or 4 */
  configRead(offset: number, size: number): number {
    const value: unknown = Reflect.apply(this.#parts.configRead, this.given, [offset, size]);
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size)) return value;
    const expected = `an unsigned number of ${size} bytes`;
    throw this.#invalid(`a config read at 0x${offset.toString(16)} returned ${valueText(value)}. Return ${expected}.`);
  }

  /** @param offset a multiple of `size`, which is 1, 2 or 4 */
  configWrite(offset: number, size: number, value: number): Pending<void> {
    const pending: unknown = Reflect.apply(this.#parts.configWrite, this.given, [offset, size, value]);
    if (pending === undefined) return this.#updateBars();
    if (types.isPromise(pending)) return this.#updateBarsAfter(pending);
    throw this.#invalid(`a config write returned ${valueText(pending)}. Return a promise or nothing.`);
  }

  #updateBarsAfter(pending: Promise<unknown>): Promise<void> {
    const update = (): void => this.#updateBars();
    return Promise.resolve(pending).then(update, (error: unknown) => {
      update();
      throw error;
    });
  }

  /** Reads addresses that it decodes. */
  mmioRead(gpa: bigint, length: number): Uint8Array {
    const { mmioRead } = this.#parts;
    if (mmioRead === undefined) return allOnes(length);
    const bytes: unknown = Reflect.apply(mmioRead, this.given, [gpa, length]);
    if (types.isUint8Array(bytes) && bytes.length === length) return bytes;
    throw this.#invalid(`a read of its BARs returned ${valueText(bytes)}. Return a Uint8Array of ${length} bytes.`);
  }

  /** Writes addresses that it decodes. A write that takes effect later may change its BARs. */
  mmioWrite(gpa: bigint, bytes: Uint8Array): Pending<void> {
    const { mmioWrite } = this.#parts;
    const pending: unknown = mmioWrite && Reflect.apply(mmioWrite, this.given, [gpa, bytes]);
    return types.isPromise(pending) ? this.#updateBarsAfter(pending) : undefined;
  }

  #startWatch(watchBars: NonNullable<FunctionParts['watchBars']>): Pick<Registration, 'remove'> {
    const changed = (): void => {
      if (this.#attached) this.#onBars(this, this.#decodedBars());
    };
    const watch: unknown = Reflect.apply(watchBars, this.given, [changed]);
    if (isRemovable(watch)) return watch;
    throw this.#invalid(`its watchBars returned ${valueText(watch)}. Return an object with the method remove.`);
  }

  /** Reads the BARs after a config write, unless the function reports changes itself. */
  #updateBars(): void {
    if (this.#attached && this.#watch === undefined) this.#onBars(this, this.#decodedBars());
  }

  #decodedBars(): AddressRange[] {
    const what = `the decoded BARs of ${addressText(this.address)}`;
    const ranges = readArray(readable(what, () => this.given.decodedBars) ?? [], what);
    for (const range of ranges) {
      if (!isRange(range)) throw this.#invalid(`one of its decodedBars is ${valueText(range)}. Return AddressRanges.`);
    }
    return ranges;
  }

  #invalid(text: string): PeerDmaError {
    return new PeerDmaError('ERR_INVALID_ARGUMENT', `the function at ${addressText(this.address)} is invalid: ${text}`);
  }
}

function isRemovable(value: unknown): value is Pick<Registration, 'remove'> {
  return readable(
    'the result of watchBars',
    () => typeof (value as Partial<Registration> | null)?.remove === 'function',
  );
}

function otherMemory(address: FunctionAddress): PeerDmaError {
  const reason = 'its BARs are in another guest memory than that of the bridge';
  const text = `${addressText(address)}: adding a function failed: ${reason}. Create both with one GuestMemory.`;
  return new PeerDmaError('ERR_INVALID_ARGUMENT', text);
}
