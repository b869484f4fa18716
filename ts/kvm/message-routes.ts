/**
 * Numbers of interrupts (GSI) for messages, and the messages that KVM sends for them.
 */
import type { NativeMachine } from '#native';
import { native } from '../native-call.ts';
import type { InterruptMessage } from '../pci/interrupts/msix-table.ts';

/** The numbers below are lines. */
export const LINES = 24;
/** Words of a route in the native core: number, address, data. */
const WORDS = 3;

/** @internal */
export class MessageRoutes {
  readonly #machine: NativeMachine;
  readonly #routes = new Map<number, InterruptMessage>();
  readonly #free: number[] = [];
  #next = LINES;

  constructor(machine: NativeMachine) {
    this.#machine = machine;
  }

  /** Returns a number that is not in use. */
  allocate(): number {
    return this.#free.pop() ?? this.#next++;
  }

  /** Sets the message of a number, or removes it. {@link MessageRoutes.commit} makes it effective. */
  set(gsi: number, message: InterruptMessage | undefined): void {
    if (message === undefined) this.#routes.delete(gsi);
    else this.#routes.set(gsi, message);
  }

  /** Ends the use of a number, whose message is removed. */
  release(gsi: number): void {
    this.#routes.delete(gsi);
    this.#free.push(gsi);
  }

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for more than about 4,050 routes; `ERR_SYSTEM`, `ERR_CLOSED` */
  commit(): void {
    const words = new BigUint64Array(this.#routes.size * WORDS);
    let at = 0;
    for (const [gsi, { address, data }] of this.#routes) {
      words[at++] = BigInt(gsi);
      words[at++] = address;
      words[at++] = BigInt(data);
    }
    native(() => this.#machine.setRoutes(words));
  }
}
