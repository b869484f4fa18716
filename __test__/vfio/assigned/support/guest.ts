/**
 * A guest with real devices assigned to it: RAM, containers, and devices whose BARs a firmware has in its hands.
 */
import type { ExecutionContext } from 'ava';
import { Firmware } from '../../../../examples/guest/firmware.ts';
import {
  AssignedDevice,
  type DeviceRegion,
  GuestMemory,
  type PeerToPeer,
  type PinnedBars,
  VfioContainerManager,
  type VfioDevice,
} from '../../../../ts/index.ts';
import { RAM_LENGTH, RAM_START } from '../../support/rig.ts';
import { Engine } from './engine.ts';
import { newManager } from '../../support/backend.ts';

/** Places for BARs: below 4 GiB, and above. Nothing else is there. */
export const LOW = 0x8000_0000n;
export const HIGH = 0x1_8000_0000n;
export const HIGHER = 0x2_9000_0000n;

/** Where the engines' registers go, one after the other. */
const ENGINES = 0xf000_0000n;
const ENGINE_LENGTH = 1n << 20n;

/** Command, and its bit for memory decode. */
const COMMAND = 4n;
const MEMORY = 2;

/** A device in the hands of the guest. */
export interface Assigned {
  readonly bdf: string;
  readonly device: AssignedDevice;
  readonly firmware: Firmware;
  /** The function itself, behind the guest's back. */
  readonly physical: VfioDevice;
}

export interface AssignOptions {
  /** In whose containers; the guest's own if not given. */
  readonly manager?: VfioContainerManager;
  readonly bars?: PinnedBars;
}

export class Guest {
  readonly memory: GuestMemory;
  readonly manager: VfioContainerManager;
  readonly #managers: VfioContainerManager[] = [];
  readonly #devices = new Set<AssignedDevice>();
  #engines = 0;

  private constructor(memory: GuestMemory) {
    this.memory = memory;
    this.manager = this.newManager();
  }

  /** Closed when the test ends, however it ends. */
  static async start(t: ExecutionContext): Promise<Guest> {
    const memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: RAM_LENGTH }] });
    const guest = new Guest(memory);
    t.teardown(() => guest.#close());
    return guest;
  }

  /** Containers beside the others. */
  newManager(peerToPeer: PeerToPeer = 'best-effort'): VfioContainerManager {
    const manager = newManager(this.memory, { peerToPeer });
    this.#managers.push(manager);
    return manager;
  }

  /** Opens a device and gives it to the guest. */
  async assign(bdf: string, options: AssignOptions = {}): Promise<Assigned> {
    const physical = await (options.manager ?? this.manager).open(bdf);
    return this.hand(physical, options);
  }

  /** Gives the guest a device that was opened. */
  async hand(physical: VfioDevice, { bars = {} }: AssignOptions = {}): Promise<Assigned> {
    const device = await AssignedDevice.create({ device: physical, memory: this.memory, bars });
    this.#devices.add(device);
    return { bdf: physical.bdf, device, firmware: await Firmware.probe(device), physical };
  }

  /** An edu that is switched on, and its driver. */
  async engine(bdf: string, options: AssignOptions = {}): Promise<Engine> {
    const assigned = await this.assign(bdf, options);
    const registers = ENGINES + BigInt(this.#engines++) * ENGINE_LENGTH;
    await assigned.firmware.place(0, registers);
    await assigned.firmware.enable();
    return new Engine(this.memory, assigned, registers);
  }

  /** Takes a device away from the guest. */
  async remove({ device }: Assigned): Promise<void> {
    await device.close();
    this.#devices.delete(device);
  }

  async #close(): Promise<void> {
    for (const device of [...this.#devices].toReversed()) await device.close();
    for (const manager of this.#managers) await manager.close();
    await this.memory.close();
  }
}

/** A BAR of a device itself. */
export function physicalBar({ bdf, physical }: Pick<Assigned, 'bdf' | 'physical'>, index: number): DeviceRegion {
  const region = physical.regions[index];
  if (region === undefined) throw new Error(`${bdf} has no BAR ${index}`);
  return region;
}

/** Devices that are being looked at, by how many, and their Command before. */
const watched = new WeakMap<VfioDevice, { lookers: number; command: Uint8Array }>();

/** Has the device itself decode memory for so long, whatever the guest believes: what is mapped anywhere is in reach then. */
export async function decoding<T>({ physical }: Pick<Assigned, 'physical'>, look: () => T): Promise<Awaited<T>> {
  const { config } = physical;
  const watch = watched.get(physical) ?? { lookers: 0, command: config.read(COMMAND, 2) };
  watched.set(physical, watch);
  if (watch.lookers++ === 0) {
    config.write(COMMAND, Uint8Array.of((watch.command[0] ?? 0) | MEMORY, watch.command[1] ?? 0));
  }
  try {
    return await look();
  } finally {
    if (--watch.lookers === 0) {
      watched.delete(physical);
      config.write(COMMAND, watch.command);
    }
  }
}

/** Targets that hold a mapping of an address, by this package's own record. */
export function holders(memory: GuestMemory, gpa: bigint): string[] {
  return memory
    .inspect()
    .targets.filter(({ mappings }) =>
      mappings.some(({ start, end, state }) => state === 'mapped' && BigInt(start) <= gpa && gpa < BigInt(end)),
    )
    .map(({ name }) => name);
}

/** How many mappings each container has: by the kernel's count, where it has one. */
export function mapped(...managers: readonly VfioContainerManager[]): number[] {
  const all = managers.flatMap((manager) => manager.inspect().containers);
  return all.map(({ mappings, dmaAvailable }) => (dmaAvailable === undefined ? mappings : 65535 - dmaAvailable));
}

/** What a guest reads where nothing answers. */
export function ones(length: number): Uint8Array {
  return new Uint8Array(length).fill(0xff);
}
