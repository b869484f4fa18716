/**
 * Caches the paths from devices up to their root buses for all cells of a matrix.
 */
import type { HostMachine, PciFunction } from '../model.ts';
import { bridgesAbove, childrenByParent } from '../read-host.ts';

/** @internal */
export class Paths {
  readonly #host: HostMachine;
  readonly #children: ReadonlyMap<string, readonly PciFunction[]>;
  readonly #paths = new Map<PciFunction, readonly PciFunction[]>();

  constructor(host: HostMachine) {
    this.#host = host;
    this.#children = childrenByParent(host);
  }

  /** Returns a function and the bridges above it, the nearest first. */
  pathOf(device: PciFunction): readonly PciFunction[] {
    const path = this.#paths.get(device) ?? [device, ...bridgesAbove(this.#host, device)];
    this.#paths.set(device, path);
    return path;
  }

  /** Returns the functions directly below a bridge, sorted by address. */
  childrenOf(bridge: PciFunction): readonly PciFunction[] {
    return this.#children.get(bridge.address) ?? [];
  }
}
