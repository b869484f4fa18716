/**
 * Real devices set up for a test: RAM, a container manager, an edu to do DMA with and an ivshmem to be its peer.
 */
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../examples/devices/edu.ts';
import { GuestMemory, VfioContainerManager, type VfioDevice, type VfioRegion } from '../../../ts/index.ts';
import { newManager } from './backend.ts';

export const RAM_LENGTH = 4n << 20n;
/** Where RAM begins; not 0, so that an address of 0 by mistake is seen. */
export const RAM_START = 0x1000_0000n;
/** RAM that the tests move through, each part its own page. */
export const SOURCE = RAM_START + 0x10_0000n;
export const SINK = RAM_START + 0x20_0000n;

export interface Rig {
  readonly memory: GuestMemory;
  readonly manager: VfioContainerManager;
  /** Opens a device in the manager's containers. */
  open(bdf: string): Promise<VfioDevice>;
  edu(bdf: string): Promise<Edu>;
}

/** Closed when the test ends, however it ends. */
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

/** Bytes that are like no others: `seed` makes them differ from test to test. */
export function pattern(seed: number, length: number = Edu.BUFFER_SIZE): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8) * 7 + seed * 101 + 1) & 0xff);
}

/** The BAR of an ivshmem that is RAM. */
export function peerBar(device: VfioDevice): VfioRegion {
  const bar = device.regions[2];
  if (bar === undefined) throw new Error(`${device.bdf} has no BAR 2`);
  return bar;
}

/** Bytes of RAM at SOURCE go by DMA to `iova`. */
export async function send(memory: GuestMemory, edu: Edu, bytes: Uint8Array, iova: bigint): Promise<void> {
  memory.write(SOURCE, bytes);
  await edu.copy(SOURCE, iova, bytes.length);
}

/** Bytes at `iova` as DMA reads them, by way of RAM at SINK. */
export async function fetch(memory: GuestMemory, edu: Edu, iova: bigint, length: number): Promise<Uint8Array> {
  memory.write(SINK, new Uint8Array(length));
  await edu.copy(iova, SINK, length);
  return memory.read(SINK, length);
}
