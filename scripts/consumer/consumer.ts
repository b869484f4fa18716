// A user of the package, compiled against its declarations with `skipLibCheck: false`.
import { type DmaTarget, EventFd, GuestMemory, VfioContainerManager } from 'peerdma';
import { DmaBuffer, registers, u32 } from 'peerdma/driver';
import { type HostMachine, type PeerMatrix, peerMatrix, readHost } from 'peerdma/host';
import { type MemorySnapshot, explain } from 'peerdma/inspect';
import { type StopReason, VirtualMachine, realModeAt } from 'peerdma/kvm';
import { SimulatedDevice, SimulatedIommu } from 'peerdma/testing';
import { VhostUserTarget } from 'peerdma/vhost-user';

const memory = await GuestMemory.create({ ram: [{ start: 0n, length: 0x1000n }] });
const target: DmaTarget = new SimulatedIommu();
const handle = await memory.dmaMappers.addDmaMapper(target);
export const states: string[] = handle.status().map(({ state }) => state);
export const manager: VfioContainerManager = new VfioContainerManager(memory, { peerToPeer: 'required' });

const host: HostMachine = readHost();
export const matrix: PeerMatrix = peerMatrix(host, []);
const snapshot: MemorySnapshot = memory.inspect();
export const text: string = explain(snapshot, 0n).text;

const device = SimulatedDevice.edu({ bdf: '0000:00:04.0' });
const [bar] = device.regions;
export const id: number | undefined = bar === undefined ? undefined : registers(bar, { id: u32(0n) }).id;
export const bytes: Uint8Array = (await DmaBuffer.allocate(memory, 0x1000n)).bytes;

const vm = await VirtualMachine.create({ memory });
vm.cpus[0].setRegisters({ ...realModeAt(0x1000n), rax: 1n });
vm.ports.add(0xf4, 1, { read: () => 0, write: () => vm.stop('end') });
const reason: string = await vm.run();
export const isFault: boolean = reason === ('triple-fault' satisfies StopReason);

export const disk: Promise<DmaTarget> = VhostUserTarget.connect('/run/disk.sock', { reconnect: 100 });

/** An `AbortSignal` is one of the signals that calls take. */
export const waiting: Promise<bigint> = EventFd.create().wait({ signal: AbortSignal.timeout(1) });
