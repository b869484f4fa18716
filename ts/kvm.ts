/**
 * `peerdma/kvm`: virtual machines of KVM on guest memory.
 */
export { VirtualCpu } from './kvm/cpu.ts';
export type { Doorbell } from './kvm/doorbells.ts';
export { InterruptLine, type LineOptions } from './kvm/interrupt-line.ts';
export { HandledMemory, PortSpace, type MemoryHandler, type PortHandler } from './kvm/handlers.ts';
export type { CpuRegisters, DescriptorTable, Segment } from './kvm/registers.ts';
export type { StopReason } from './kvm/stops.ts';
export {
  VirtualMachine,
  type MachineState,
  type VirtualMachineOptions,
  type VirtualMachineSnapshot,
} from './kvm/virtual-machine.ts';
