/**
 * `peerdma/kvm`: virtual machines of KVM on guest memory.
 *
 * A program with a virtual machine has guest memory, so it loads `peerdma` anyway. With the import here, the bundles
 * share one set of chunks. Without it, the code of both would be in further chunks, and each costs time in every import
 * of `peerdma`.
 */
import './index.ts';
export type { VirtualCpu } from './kvm/cpu.ts';
export type { Doorbell } from './kvm/doorbells.ts';
export type { InterruptLine, LineOptions } from './kvm/interrupt-line.ts';
export type { HandledMemory, MemoryHandler, PortHandler, PortSpace } from './kvm/handlers.ts';
export type { CpuRegisters, DescriptorTable, Segment } from './kvm/registers.ts';
export { identityPageTables } from './kvm/page-tables.ts';
export { lineOfPin } from './kvm/pin-lines.ts';
export { longModeAt, protectedModeAt, realModeAt } from './kvm/start-registers.ts';
export type { StopReason } from './kvm/stops.ts';
export type { MachineState } from './kvm/machine-run.ts';
export type { VirtualMachineOptions } from './kvm/machine-options.ts';
export { VirtualMachine, type VirtualMachineSnapshot } from './kvm/virtual-machine.ts';
