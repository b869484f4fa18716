/**
 * What the findings of many devices look up, found once: the doctor's work grows with the devices, not with their
 * pairs.
 */
import { GroupUses } from '../host/group-use.ts';
import type { PciFunction } from '../host/model.ts';
import { usersByFile } from '../host/use/open-files.ts';
import { filesOf } from '../host/vfio-files.ts';
import type { Facts } from './facts.ts';

/** Files below /dev by which devices are opened, and the processes that have them open. @internal */
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

  /** Virtual functions of a physical one, in the order of their addresses. */
  virtualFunctionsOf(address: string): readonly PciFunction[] {
    return this.#virtualFunctions.get(address) ?? [];
  }

  openersOf(devices: readonly PciFunction[]): Openers {
    const paths = devices.flatMap((device) => Object.values(filesOf(device)));
    const files = [...new Set(paths.filter((path) => path !== undefined))];
    return { files, users: [...new Set(files.flatMap((file) => this.#users.get(file) ?? []))] };
  }

  /** A process that has a device of the group open uses the group. */
  openersOfGroup(group: number): Openers {
    const known = this.#openers.get(group) ?? this.openersOf(this.groups.of(group).members);
    this.#openers.set(group, known);
    return known;
  }
}
