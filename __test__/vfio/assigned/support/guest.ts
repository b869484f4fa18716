/**
 * A guest with real devices assigned to it. It has RAM, containers, and devices whose BARs are placed as by firmware.
 */
import type { ExecutionContext } from 'ava';
import { Firmware } from '../../../../examples/guest/firmware.ts';
import {
  AssignedDevice,
  type DeviceOpenOptions,
  type DeviceRegion,
  GuestMemory,
  type PeerToPeer,
  type BarsOptions,
  VfioContainerManager,
  type VfioDevice,
} from '../../../../ts/index.ts';
import { RAM_LENGTH, RAM_START } from '../../support/rig.ts';
import { Engine } from './engine.ts';
import { newManager } from '../../support/backend.ts';

/** Addresses for BARs, below and above 4 GiB. The guest has nothing else there. */
export const LOW = 0x8000_0000n;
export const HIGH = 0x1_8000_0000n;
export const HIGHER = 0x2_9000_0000n;

/** The registers of the engines, one after the other. */
const ENGINES = 0xf000_0000n;
const ENGINE_LENGTH = 1n << 20n;

/** Command, and its bit for memory decode. */
const COMMAND = 4n;
const MEMORY = 2;

/** A device that is assigned to the guest. */
export interface Assigned {
  readonly bdf: string;
  readonly device: AssignedDevice;
  readonly firmware: Firmware;
  /** The function itself, without the guest's emulation. */
  readonly physical: VfioDevice;
}

export interface AssignOptions {
  /** The manager whose containers it joins; by default that of the guest. */
  readonly manager?: VfioContainerManager;
  readonly bars?: BarsOptions;
  readonly peerToPeerDomain?: string;
  /** Options with which the device is opened. */
  readonly opening?: DeviceOpenOptions;
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

  /** Closed when the test ends, also if it fails. */
  static async start(t: ExecutionContext): Promise<Guest> {
    const memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: RAM_LENGTH }] });
    const guest = new Guest(memory);
    t.teardown(() => guest.close());
    return guest;
  }

  /** Another manager, with containers of its own. */
  newManager(peerToPeer: PeerToPeer = 'best-effort'): VfioContainerManager {
    const manager = newManager(this.memory, { peerToPeer });
    this.#managers.push(manager);
    return manager;
  }

  /** Opens a device and assigns it to the guest. */
  async assign(bdf: string, options: AssignOptions = {}): Promise<Assigned> {
    const physical = await (options.manager ?? this.manager).open(bdf, options.opening);
    return this.hand(physical, options);
  }

  /** Assigns an open device to the guest. */
  async hand(physical: VfioDevice, options: AssignOptions = {}): Promise<Assigned> {
    const { bars = {}, peerToPeerDomain } = options;
    const domain = peerToPeerDomain === undefined ? {} : { peerToPeerDomain };
    const device = await AssignedDevice.create({ device: physical, memory: this.memory, bars, ...domain });
    this.#devices.add(device);
    return { bdf: physical.bdf, device, firmware: await Firmware.probe(device), physical };
  }

  /** An edu with decode and bus mastering on, and its driver. */
  async engine(bdf: string, options: AssignOptions = {}): Promise<Engine> {
    const assigned = await this.assign(bdf, options);
    const registers = ENGINES + BigInt(this.#engines++) * ENGINE_LENGTH;
    await assigned.firmware.place(0, registers);
    await assigned.firmware.enable();
    return new Engine(this.memory, assigned, registers);
  }

  /** Removes a device from the guest. */
  async remove({ device }: Assigned): Promise<void> {
    await device.close();
    this.#devices.delete(device);
  }

  /** Closes the devices, containers and memory. Idempotent. */
  async close(): Promise<void> {
    for (const device of [...this.#devices].toReversed()) await device.close();
    for (const manager of this.#managers) await manager.close();
    await this.memory.close();
  }
}

/** A BAR of the device itself. */
export function physicalBar({ bdf, physical }: Pick<Assigned, 'bdf' | 'physical'>, index: number): DeviceRegion {
  const region = physical.regions[index];
  if (region === undefined) throw new Error(`${bdf} has no BAR ${index}`);
  return region;
}

/** The devices whose decode is forced on, with the number of users and their Command before. */
const watched = new WeakMap<VfioDevice, { lookers: number; command: Uint8Array }>();

/**
 * Turns on memory decode in the device itself during `run`, whatever the guest has set. Every remaining mapping is
 * reachable then.
 */
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

/** Targets that hold a mapping of an address, by the records of this package. */
export function holders(memory: GuestMemory, gpa: bigint): string[] {
  return memory
    .inspect()
    .targets.filter(({ mappings }) =>
      mappings.some(({ start, end, state }) => state === 'mapped' && BigInt(start) <= gpa && gpa < BigInt(end)),
    )
    .map(({ name }) => name);
}

/** The number of mappings of each container: the kernel's count, if it has one. */
export function mapped(...managers: readonly VfioContainerManager[]): number[] {
  const all = managers.flatMap((manager) => manager.inspect().containers);
  return all.map(({ mappings, dmaAvailable }) => (dmaAvailable === undefined ? mappings : 65535 - dmaAvailable));
}

/** The bytes that a guest reads where nothing responds. */
export function ones(length: number): Uint8Array {
  return new Uint8Array(length).fill(0xff);
}
