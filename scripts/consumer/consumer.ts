// A user of the package, compiled against its declarations with `skipLibCheck: false`.
import { type DmaTarget, EventFd, GuestMemory, SimulatedIommu, VfioContainerManager } from 'peerdma';

const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 0x1000n }] });
const target: DmaTarget = new SimulatedIommu();
const handle = await memory.dmaMappers.addDmaMapper(target);
export const states: string[] = handle.status().map(({ state }) => state);
export const manager: VfioContainerManager = new VfioContainerManager(memory, { peerToPeer: 'required' });

/** An `AbortSignal` is one of the signals that calls take. */
export const waiting: Promise<bigint> = EventFd.create().wait({ signal: AbortSignal.timeout(1) });
