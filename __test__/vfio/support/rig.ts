/**
 * Real devices for a test: RAM, a container manager, an edu for DMA, and an ivshmem as its peer.
 */
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../examples/devices/edu.ts';
import { GuestMemory, VfioContainerManager, type VfioDevice, type VfioRegion } from '../../../ts/index.ts';
import { newManager } from './backend.ts';

export const RAM_LENGTH = 4n << 20n;
/** The start of RAM; not 0, so that a wrong address of 0 is detected. */
export const RAM_START = 0x1000_0000n;
/** The RAM that the tests use, each part a page of its own. */
export const SOURCE = RAM_START + 0x10_0000n;
export const SINK = RAM_START + 0x20_0000n;

export interface Rig {
  readonly memory: GuestMemory;
  readonly manager: VfioContainerManager;
  /** Opens a device in the manager's containers. */
  open(bdf: string): Promise<VfioDevice>;
  edu(bdf: string): Promise<Edu>;
}

/** Closed when the test ends, also if it fails. */
export async function rig(t: ExecutionContext, ram: boolean = true): Promise<Rig> {
  const memory = await GuestMemory.create(ram ? { ram: [{ start: RAM_START, length: RAM_LENGTH }] } : {});
  const manager = newManager(memory);
  t.teardown(async () => {
    await manager.close();
    await memory.close();
  });
  const open = (bdf: string): Promise<VfioDevice> => manager.open(bdf);
  return { memory, manager, open, edu: async (bdf) => new Edu(await open(bdf)) };
}

/** Distinct bytes: `seed` makes them differ from test to test. */
export function pattern(seed: number, length: number = Edu.BUFFER_SIZE): Uint8Array {
  const bytes = new Uint8Array(length);
  // Not `Uint8Array.from`, which takes most of a second for a mebibyte in an emulated guest.
  for (let index = 0; index < length; index++) bytes[index] = index * 31 + (index >> 8) * 7 + seed * 101 + 1;
  return bytes;
}

/** The BAR of an ivshmem that is RAM. */
export function peerBar(device: VfioDevice): VfioRegion {
  const bar = device.regions[2];
  if (bar === undefined) throw new Error(`${device.bdf} has no BAR 2`);
  return bar;
}

/** Sends the bytes of RAM at SOURCE by DMA to `iova`. */
export async function send(memory: GuestMemory, edu: Edu, bytes: Uint8Array, iova: bigint): Promise<void> {
  memory.write(SOURCE, bytes);
  await edu.copy(SOURCE, iova, bytes.length);
}

/** Reads bytes at `iova` by DMA, through RAM at SINK. */
export async function fetch(memory: GuestMemory, edu: Edu, iova: bigint, length: number): Promise<Uint8Array> {
  memory.write(SINK, new Uint8Array(length));
  await edu.copy(iova, SINK, length);
  return memory.read(SINK, length);
}
