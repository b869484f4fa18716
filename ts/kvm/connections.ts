/**
 * Connections of a virtual machine: its close ends those that are left.
 */
import { Registration, removeAll } from '../registration.ts';

/** @internal */
export class Connections {
  readonly #all = new Set<Registration>();

  /** @param end is called until it succeeds once, by the removal of the registration or {@link Connections.endAll} */
  add(end: () => void): Registration {
    const one: Registration = new Registration(() => {
      end();
      this.#all.delete(one);
    });
    this.#all.add(one);
    return one;
  }

  /** @throws the first error, after all were ended */
  endAll(): void {
    removeAll(this.#all);
  }
}
