/** Three simulated devices that write into each other and into RAM, and a count of what arrives. */
import { setImmediate } from 'node:timers/promises';
import { GuestMemory, type DeviceMemory, type DeviceMigration } from '../../../ts/index.ts';
import { SimulatedDevice, SimulatedIommu, type SimulatedMigrationOptions } from '../../../ts/testing.ts';

export const NAMES = ['nic', 'gpu', 'disk'] as const;
export type Name = (typeof NAMES)[number];

const RAM = 1n << 20n;
const BAR = 1n << 16n;
/** Bytes of a message. */
const MESSAGE = 16;
/** Messages of one device to one target at most. */
const SLOTS = 256;

/** A message: a write of a device to a slot of its own. */
export interface Message {
  readonly from: number;
  /** A device, or 3 for RAM. */
  readonly to: number;
  /** Number among the messages from that device to that target. */
  readonly sequence: number;
}

/** How often each write of a device was done, by its address. VMs that are parts of one migration share it. */
export type Arrivals = Map<bigint, number>;

export interface Vm {
  readonly memory: GuestMemory;
  readonly devices: Readonly<Record<Name, SimulatedDevice>>;
  /** The migrations of the devices, in order of their names. */
  readonly migrations: readonly DeviceMigration[];
  /** The memory of the devices, in this order, too. */
  readonly bars: readonly DeviceMemory[];
  close(): Promise<void>;
}

/** The guest-physical address of a message. */
export function addressOf({ from, to, sequence }: Message): bigint {
  const start = to === NAMES.length ? 0n : barAddress(to);
  return start + BigInt((from * SLOTS + sequence) * MESSAGE);
}

export function barAddress(device: number): bigint {
  return 0x8000_0000n + BigInt(device) * BAR;
}

/** The bytes of a message, none of them 0. */
export function bytesOf({ from, to, sequence }: Message): Uint8Array {
  const text = `${from}>${to}#${sequence}`;
  return Uint8Array.from(Buffer.from(text.padEnd(MESSAGE, '.')));
}

/** Creates the VM. @param arrivals receives what its devices write */
export async function createVm(
  arrivals: Arrivals,
  options: readonly SimulatedMigrationOptions[] = [{}, {}, {}],
  masters = false,
): Promise<Vm> {
  const memory = await GuestMemory.create({ addressWidth: 32, ram: [{ start: 0n, length: RAM }] });
  const bars: DeviceMemory[] = [];
  const make = async (name: Name, index: number): Promise<SimulatedDevice> => {
    const iommu = new SimulatedIommu({ name });
    const device = new SimulatedDevice({
      bdf: `0000:00:0${index + 1}.0`,
      bars: [{ index: 0, length: BAR }],
      migration: options[index] ?? {},
      resettable: true,
      iommu: {
        read: (iova, length) => iommu.read(iova, length),
        write: (iova, bytes) => {
          iommu.write(iova, bytes);
          arrivals.set(iova, (arrivals.get(iova) ?? 0) + 1);
        },
      },
    });
    if (masters) device.config.write(4n, Uint8Array.of(6, 0)); // memory decode and bus mastering
    const bar = memory.newDeviceMemory({ name, length: BAR });
    const backing = device.regions[0]?.backing();
    if (backing !== undefined) await bar.addMapping({ backing });
    await bar.mapToGuest(barAddress(index));
    bars.push(bar);
    await memory.dmaMappers.addDmaMapper(iommu, { peerToPeer: 'required' });
    return device;
  };
  const devices = { nic: await make('nic', 0), gpu: await make('gpu', 1), disk: await make('disk', 2) };
  const all = Object.values(devices);
  return {
    memory,
    devices,
    bars,
    migrations: all.map(({ migration }) => migration as DeviceMigration),
    close: async () => {
      await memory.close();
      for (const device of all) await device.close();
    },
  };
}

/** Lets each change of a device's state take some turns of the event loop. */
export function slowDown({ migrations }: Vm, delays: readonly number[]): void {
  for (const [index, migration] of migrations.entries()) {
    const setState = migration.setState.bind(migration);
    migration.setState = async (state) => {
      await turns(delays[index] ?? 0);
      await setState(state);
    };
  }
}

/** Queues messages in the devices that send them. */
export function queue({ devices }: Vm, messages: readonly Message[]): void {
  const all = NAMES.map((name) => devices[name]);
  for (const message of messages) all[message.from]?.queueDmaWrite(addressOf(message), bytesOf(message));
}

/** Lets some turns of the event loop pass. Every device writes once in a turn. */
export async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await setImmediate();
}

/** Waits until the devices have written everything. */
export async function drain({ devices }: Vm): Promise<void> {
  while (Object.values(devices).some(({ queuedDmaWrites }) => queuedDmaWrites > 0)) await setImmediate();
}

/** Compares the memory of a VM, and what arrived, with the messages. */
export function compare(
  { memory }: Vm,
  messages: readonly Message[],
  arrivals: Arrivals,
): { lost: number; twice: number } {
  const isLost = (message: Message): boolean =>
    Buffer.compare(memory.read(addressOf(message), MESSAGE), bytesOf(message)) !== 0;
  return {
    lost: messages.filter(isLost).length,
    twice: messages.filter((message) => (arrivals.get(addressOf(message)) ?? 0) > 1).length,
  };
}
