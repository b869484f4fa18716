/**
 * Connects the interrupts of an assigned device to a virtual machine.
 *
 * The kernel delivers each interrupt without JavaScript.
 */
import type { NativeMachine } from '#native';
import type { AssignedInterrupts } from '../pci/interrupts/assigned-interrupts.ts';
import type { InterruptVector } from '../pci/interrupts/vector.ts';
import { Registration, endAll, endQuietly } from '../registration.ts';
import { connectEvent } from './interrupt-line.ts';
import type { MessageRoutes } from './message-routes.ts';

/** A vector whose event is connected. */
interface Connected {
  readonly gsi: number;
  readonly event: Registration;
}

/** @internal */
export class DeviceInterruptsConnection {
  readonly #machine: NativeMachine;
  readonly #routes: MessageRoutes;
  readonly #failed: (error: unknown) => void;
  readonly #connected = new Map<InterruptVector, Connected>();
  readonly #watch: Registration;
  #pin: Registration | undefined;

  /**
   * @param line of the pin; without one, the pin is not connected
   * @param failed is called if a change of the guest cannot be applied
   */
  constructor(
    machine: NativeMachine,
    routes: MessageRoutes,
    interrupts: AssignedInterrupts,
    line: number | undefined,
    failed: (error: unknown) => void,
  ) {
    this.#machine = machine;
    this.#routes = routes;
    this.#failed = failed;
    this.#watch = interrupts.watchVectors((vectors) => {
      try {
        this.#apply(vectors);
      } catch (error) {
        this.#failed(error);
      }
    });
    try {
      if (line !== undefined && interrupts.count('intx') > 0) {
        const pin = interrupts.vector('intx');
        void pin.fd; // connects it
        this.#pin = new Registration(connectEvent(machine, pin.event, line, interrupts.resampleEvent));
      }
      this.#apply(vectorsOf(interrupts));
    } catch (error) {
      endQuietly(() => this.close());
      throw error;
    }
  }

  /** Disconnects all vectors. Can be repeated after a failure. */
  close(): void {
    this.#watch.remove();
    const vectors = [...this.#connected].map(([vector, { gsi, event }]) => () => {
      event.remove();
      this.#routes.release(gsi);
      this.#connected.delete(vector);
    });
    endAll([() => this.#pin?.remove(), ...vectors, () => this.#routes.commit()]);
  }

  /**
   * Routes the messages of vectors, and connects the events of new ones. A masked vector keeps its route: its device
   * signals another event then.
   */
  #apply(vectors: readonly InterruptVector[]): void {
    const added: InterruptVector[] = [];
    let isChanged = false;
    for (const vector of vectors) {
      if (vector.kind === 'intx' || vector.kind === 'error' || vector.kind === 'request') continue;
      const { message } = vector;
      const known = this.#connected.get(vector);
      if (known === undefined && (message === undefined || !vector.enabled)) continue;
      if (known === undefined) added.push(vector);
      else this.#routes.set(known.gsi, message);
      isChanged = true;
    }
    const numbers = added.map((vector) => {
      const gsi = this.#routes.allocate();
      this.#routes.set(gsi, vector.message);
      return gsi;
    });
    try {
      if (isChanged) this.#routes.commit();
      for (const [index, vector] of added.entries()) {
        const gsi = numbers[index] as number;
        const event = new Registration(connectEvent(this.#machine, vector.event, gsi));
        this.#connected.set(vector, { gsi, event });
      }
    } catch (error) {
      // Their routes would be in the next commit, which may be that of another device.
      added.forEach((vector, index) => {
        if (!this.#connected.has(vector)) this.#routes.release(numbers[index] as number);
      });
      throw error;
    }
  }
}

function vectorsOf(interrupts: AssignedInterrupts): InterruptVector[] {
  return (['msi', 'msix'] as const).flatMap((kind) =>
    Array.from({ length: interrupts.count(kind) }, (_, index) => interrupts.vector(kind, index)),
  );
}
