/// <reference lib="esnext.disposable" preserve="true" />
/**
 * peerdma: guest memory and device DMA for VMMs in TypeScript.
 *
 * A class whose objects only this package makes is exported as a type, or, if it has static methods, with a constructor
 * that rejects every caller.
 */
export { AddressRange } from './address-range.ts';
export { PeerDmaError, type ErrorCode, type ErrorDetails } from './errors.ts';
export type { DmaEvent, MemoryAction, MemoryChangeEvent, MemorySettledEvent } from './dma/events.ts';

export { MemoryFile, type HugePageSize } from './memory/memory-file.ts';
export type { Backing } from './memory/backing.ts';
export type { HostMemory } from './memory/host-memory.ts';

export type { DmaMapRequest, DmaTarget, MappingStatus, MemoryKind, PeerToPeer } from './dma/target.ts';
export type { IommuRulesName } from './dma/iommu-rules.ts';
export type { DirtyPages } from './dma/dirty-pages.ts';
export { SimulatedIommu } from './dma/simulated-iommu.ts';

export { GuestMemory } from './guest/guest-memory.ts';
export type { RamOptions } from './guest/ram.ts';
export type { MappingOptions, MemoryChange, MemoryRegion } from './guest/memory-change.ts';
export type { Region } from './guest/region.ts';
export type { RegionManager } from './guest/region-manager.ts';
export { DEFAULT_PRIORITY } from './guest/region-state.ts';
export type { DeviceMemory } from './guest/device-memory.ts';
export type { DmaMapperClient, DmaMapperHandle } from './guest/dma-mapper-client.ts';
export type { RefreshedMapping } from './guest/device-changes.ts';
export type {
  MemorySnapshot,
  RangeSnapshot,
  RegionSnapshot,
  StatusSnapshot,
  SubMappingSnapshot,
  TargetSnapshot,
} from './guest/inspect.ts';
export { explain, type Explanation, type SeenMemory } from './guest/explain.ts';
export type { Layer } from './guest/layers.ts';
export type { TargetView } from './guest/target-view.ts';
export { recordJournal, type FileUrl, type Journal } from './journal/journal.ts';
export { readJournal, type JournalEntry } from './journal/read.ts';
export type { Hunk, RegionDelta, SnapshotDelta, TargetDelta } from './journal/delta.ts';
export type { JournalError, JournalLine, JournalStart } from './journal/lines.ts';

export type { DeviceInterrupts, DeviceRegion, InterruptKind, PhysicalFunction } from './pci/physical-function.ts';
export { AssignedDevice, resetDevices, type AssignedDeviceSnapshot } from './pci/assigned-device.ts';
export type { PciFaultEvent } from './pci/pci-fault.ts';
export type { BarEvent, BarSnapshot, BarStatus } from './pci/bar-status.ts';
export type { BarKind } from './pci/config/bar-registers.ts';
export type { PinnedBars } from './pci/pinned-bars.ts';
export type { AssignedInterrupts } from './pci/interrupts/assigned-interrupts.ts';
export type { InterruptVector } from './pci/interrupts/vector.ts';
export type { InterruptMessage } from './pci/interrupts/msix-table.ts';
export { EventFd } from './pci/event-fd.ts';
export { SimulatedDevice, type SimulatedEduOptions } from './pci/simulated/simulated-device.ts';
export { SimulatedBus } from './pci/simulated/simulated-bus.ts';
export type {
  SimulatedBar,
  SimulatedDeviceOptions,
  SimulatedDma,
  SimulatedIds,
  SimulatedMsix,
  SimulatedRegisters,
} from './pci/simulated/options.ts';
export { DmaBuffer, type DmaBufferOptions } from './driver/dma-buffer.ts';
export { registers, u32, u64, type Register, type RegisterFile, type RegisterView } from './driver/registers.ts';
export {
  ACS_CONTROLS,
  bridgesAbove,
  childrenOf,
  functionAt,
  pciAddress,
  peerCandidates,
  peerMatrix,
  readHost,
  type AcsControl,
  type AcsFacts,
  type AtsFacts,
  type BarResource,
  type BridgeWindow,
  type BusNumbers,
  type Bypass,
  type CpuIdentity,
  type Host,
  type HostFinding,
  type Iommu,
  type IommuGroup,
  type KernelVersion,
  type LinkFacts,
  type NonPciMember,
  type PciFunction,
  type PciIds,
  type PeerCell,
  type PeerMatrix,
  type PortType,
  type Reason,
  type ReasonCode,
  type ReservedRange,
  type RootBus,
  type TargetBar,
  type Unknown,
  type Verdict,
  type VirtualFunctions,
} from './host/index.ts';
export { diagnose, type DiagnoseOptions } from './doctor/diagnose.ts';
export type { BarVerdict, DeviceDiagnosis, Diagnosis, Finding, FindingId, FindingState } from './doctor/finding.ts';
export {
  VfioContainerManager,
  type OpenOptions,
  type TargetRefreshedMapping,
  type VfioOptions,
  type VfioSnapshot,
} from './vfio/container-manager.ts';
export type { BackendName, ContainerSnapshot } from './vfio/backend.ts';
export type { DirtyTracking } from './vfio/dirty-tracking.ts';
export type { VfioDevice } from './vfio/vfio-device.ts';
export type { VfioInterrupts } from './vfio/vfio-interrupts.ts';
export type { VfioRegion } from './vfio/vfio-region.ts';
