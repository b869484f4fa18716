/**
 * Two containers over one guest memory, each with an edu, and their complete state for comparisons.
 */
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../examples/devices/edu.ts';
import {
  AddressRange,
  type GuestMemory,
  MemoryFile,
  type PeerToPeer,
  type Region,
  VfioContainerManager,
} from '../../../ts/index.ts';
import { pinnedAtRest } from './pins.ts';
import { SOURCE, pattern } from './rig.ts';
import { newManager } from './backend.ts';

export const PIECE = 0x1_0000n;

/** Opens an edu in a container of its own. */
export async function openInOwnContainer(
  t: ExecutionContext,
  memory: GuestMemory,
  bdf: string,
  peerToPeer: PeerToPeer = 'best-effort',
): Promise<{ manager: VfioContainerManager; edu: Edu }> {
  const manager = newManager(memory, { peerToPeer });
  t.teardown(() => manager.close());
  return { manager, edu: new Edu(await manager.open(bdf)) };
}

/** Regions, flat map, the mappings of each target, the kernel's counts, and the number of pinned pages. */
export async function completeState(
  memory: GuestMemory,
  ...managers: readonly VfioContainerManager[]
): Promise<object> {
  const pinned = await pinnedAtRest();
  return { memory: memory.inspect(), containers: managers.map((manager) => manager.inspect().containers), pinned };
}

/** An inactive region with a piece of a file of its own at each of some addresses. */
export async function scattered(
  t: ExecutionContext,
  memory: GuestMemory,
  name: string,
  addresses: readonly bigint[],
): Promise<{ region: Region; file: MemoryFile }> {
  const [start = 0n] = addresses;
  const end = (addresses.at(-1) ?? start) + PIECE;
  const file = MemoryFile.create(BigInt(addresses.length) * PIECE, { name });
  t.teardown(() => file.close());
  const region = await memory.regions.addRegion({ name, range: AddressRange.of(start, end - start) });
  for (const [index, address] of addresses.entries()) {
    const range = AddressRange.of(address - start, PIECE);
    await region.addMapping({ range, backing: { file, offset: BigInt(index) * PIECE } });
  }
  return { region, file };
}

/** Whether a DMA write to an address arrives in a file. */
export async function reaches(
  memory: GuestMemory,
  edu: Edu,
  address: bigint,
  file: Pick<MemoryFile, 'read' | 'write'>,
  offset: bigint = 0n,
): Promise<boolean> {
  const bytes = pattern(Number(address >> 12n) & 0xff);
  memory.write(SOURCE, bytes);
  file.write(offset, new Uint8Array(bytes.length));
  await edu.copy(SOURCE, address, bytes.length);
  return Buffer.compare(file.read(offset, bytes.length), bytes) === 0;
}
