/**
 * Indexes that findings of all devices share. With them, the work does not grow with pairs of devices.
 */
import { GroupUses } from '../host/group-use.ts';
import type { PciFunction } from '../host/model.ts';
import { usersByFile } from '../host/use/open-files.ts';
import { filesOf } from '../host/vfio-files.ts';
import type { Facts } from './facts.ts';

/** Device files below /dev, and the processes that have them open. @internal */
export interface Openers {
  readonly files: readonly string[];
  readonly users: readonly string[];
}

/** @internal */
export class Lookups {
  readonly groups: GroupUses;
  readonly #virtualFunctions = new Map<string, PciFunction[]>();
  readonly #users: ReadonlyMap<string, readonly string[]>;
  readonly #openers = new Map<number, Openers>();

  constructor({ host, system: { openFiles } }: Facts) {
    this.groups = new GroupUses(host);
    this.#users = openFiles === 'unknown' ? new Map() : usersByFile(openFiles);
    for (const each of host.functions.values()) {
      const { physicalFunction } = each;
      if (physicalFunction === undefined) continue;
      const others = this.#virtualFunctions.get(physicalFunction) ?? [];
      others.push(each);
      this.#virtualFunctions.set(physicalFunction, others);
    }
  }

  /** Returns the virtual functions of a physical function, sorted by address. */
  virtualFunctionsOf(address: string): readonly PciFunction[] {
    return this.#virtualFunctions.get(address) ?? [];
  }

  openersOf(devices: readonly PciFunction[]): Openers {
    const paths = devices.flatMap((device) => Object.values(filesOf(device)));
    const files = [...new Set(paths.filter((path) => path !== undefined))];
    return { files, users: [...new Set(files.flatMap((file) => this.#users.get(file) ?? []))] };
  }

  /** Returns the openers of all devices of a group: a process with one open uses the group. */
  openersOfGroup(group: number): Openers {
    const known = this.#openers.get(group) ?? this.openersOf(this.groups.of(group).members);
    this.#openers.set(group, known);
    return known;
  }
}
