/** The functions of a host bridge by their guest addresses. */
import { PeerDmaError } from '../../errors.ts';
import type { GuestMemory } from '../../guest/guest-memory.ts';
import { AttachedFunction } from './attached-function.ts';
import { BarIndex } from './bar-index.ts';
import { type FunctionAddress, addressText, otherFunctions } from './function-address.ts';
import type { GuestPciFunction } from './guest-pci-function.ts';
import type { OrderedAccesses } from './ordered-accesses.ts';

/** @internal */
export class FunctionTable {
  readonly bars = new BarIndex<AttachedFunction>();
  /** Functions with a config write in flight. */
  readonly inFlight = new Set<OrderedAccesses>();
  readonly #functions = new Map<FunctionAddress, AttachedFunction>();
  readonly #memory: GuestMemory | undefined;
  #added = 0;

  /** @param memory the guest memory of the bridge, if it has one */
  constructor(memory: GuestMemory | undefined) {
    this.#memory = memory;
  }

  /** In the order in which they were added. */
  get all(): Iterable<AttachedFunction> {
    return this.#functions.values();
  }

  get(address: FunctionAddress): AttachedFunction | undefined {
    return this.#functions.get(address);
  }

  /** Whether a device has more functions than function 0. */
  isMultiFunction(function0: FunctionAddress): boolean {
    return otherFunctions(function0).some((address) => this.#functions.has(address));
  }

  /** See {@link PciHostBridge.add}. */
  add(address: FunctionAddress, given: GuestPciFunction): AttachedFunction {
    const fail = (code: 'ERR_OVERLAP' | 'ERR_DEVICE_IN_USE', reason: string): PeerDmaError =>
      new PeerDmaError(code, `${addressText(address)}: adding a function failed: ${reason}`);
    if (this.#functions.has(address)) throw fail('ERR_OVERLAP', 'the address has a function. Remove that first.');
    for (const { given: other, address: at } of this.#functions.values()) {
      if (other !== given) continue;
      throw fail('ERR_DEVICE_IN_USE', `the function is at ${addressText(at)} already. Remove it there first.`);
    }
    const attached = new AttachedFunction(given, {
      address,
      order: this.#added++,
      memory: this.#memory,
      inFlight: this.inFlight,
      onBars: (func, ranges) => this.bars.set(func, ranges),
    });
    this.#functions.set(address, attached);
    return attached;
  }

  /** See {@link PciHostBridge.remove}. */
  remove(address: FunctionAddress): void {
    const func = this.#functions.get(address);
    this.#functions.delete(address);
    func?.detach();
  }
}
