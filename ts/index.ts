/// <reference lib="esnext.disposable" preserve="true" />
/**
 * `peerdma`: guest memory, DMA targets, VFIO and assigned devices.
 *
 * A class whose objects only this package makes is exported as a type, or, if it has static methods, with a constructor
 * that rejects every caller.
 */
export { AddressRange } from './address-range.ts';
export type { AbortOptions, AbortSignalLike } from './abort.ts';
export { PeerDmaError, type ErrorCode, type ErrorDetails } from './errors.ts';
export type { Registration } from './registration.ts';
export type { DmaEvent, MemoryAction, MemoryChangeEvent, MemorySettledEvent } from './dma/events.ts';

export { MemoryFile, type HugePageSize, type MemoryFileOptions } from './memory/memory-file.ts';
export type { Backing } from './memory/backing.ts';
export type { HostMemory } from './memory/host-memory.ts';

export type { AcceptedMemory } from './dma/accepted-memory.ts';
export type { MemorySharing } from './guest/memory-sharing.ts';
export type { SharedRange, SharingChange, SharingOptions } from './guest/shared-ranges.ts';
export type { DeviceAccessOptions } from './dma/device-access.ts';
export type { DmaMapperOptions } from './dma/peer-policy.ts';
export type { DmaMapRequest, DmaTarget, MappingStatus, MemoryKind, PeerToPeer } from './dma/target.ts';
export type { DirtyPages } from './dma/dirty-pages.ts';

export { GuestMemory, type GuestMemoryOptions } from './guest/guest-memory.ts';
export type { Ram } from './guest/ram.ts';
export type { PluggableRam } from './guest/pluggable-ram.ts';
export type { PluggableRamOptions, RamOptions } from './guest/ram-options.ts';
export type { MapToGuestOptions, MappingOptions, MemoryChange, MemoryRegion } from './guest/memory-change.ts';
export type { Region } from './guest/region.ts';
export type { RegionManager, RegionOptions } from './guest/region-manager.ts';
export { DEFAULT_PRIORITY } from './guest/region-state.ts';
export type { DeviceMemory, DeviceMemoryOptions } from './guest/device-memory.ts';
export type { DmaMapperClient, DmaMapperHandle } from './guest/dma-mapper-client.ts';
export type { RefreshedMapping } from './guest/device-changes.ts';
export type {
  MappingStatusSnapshot,
  MemorySnapshot,
  RangeSnapshot,
  RegionSnapshot,
  SubMappingSnapshot,
  TargetSnapshot,
} from './guest/inspect.ts';
export type { Explanation, MemoryAtAddress } from './guest/explain.ts';
export type { RegionAtAddress } from './guest/layers.ts';
export type { TargetAtAddress } from './guest/target-view.ts';

export type {
  DeviceDmaLog,
  DeviceMigration,
  MigrationState,
  MigrationSupport,
  PreCopyData,
  SaveOptions,
} from './pci/migration/device-migration.ts';
export type { DeviceInterrupts, DeviceRegion, InterruptKind, PhysicalFunction } from './pci/physical-function.ts';
export {
  AssignedDevice,
  resetDevices,
  type AssignedDeviceOptions,
  type AssignedDeviceSnapshot,
} from './pci/assigned-device.ts';
export { PciHostBridge, type PciHostBridgeOptions } from './pci/host-bridge/pci-host-bridge.ts';
export type { GuestPciFunction } from './pci/host-bridge/guest-pci-function.ts';
export type { PciFaultEvent } from './pci/pci-fault.ts';
export type { BarEvent, BarSnapshot, BarStatus } from './pci/bar-status.ts';
export type { AddedCapability } from './pci/config/added-capabilities.ts';
export type { BarTrap, ConfigMirror } from './pci/bar-quirks.ts';
export type { BarKind } from './pci/config/bar-registers.ts';
export type { ConfigOverrides } from './pci/config/config-overrides.ts';
export type { GuestPortType } from './pci/config/port-type.ts';
export { type NvidiaMirrorOptions, nvidiaConfigMirrors, nvidiaP2pClique } from './pci/nvidia.ts';
export type { BarOptions, BarsOptions } from './pci/bar-options.ts';
export type { AssignedInterrupts } from './pci/interrupts/assigned-interrupts.ts';
export type { InterruptVector } from './pci/interrupts/vector.ts';
export type { InterruptMessage } from './pci/interrupts/msix-table.ts';
export { EventFd } from './event-fd.ts';
export { UnixSocket, type ReceivedMessage, type SendOptions } from './unix-socket.ts';
export type { DescriptorOwner, DescriptorSource, OwnedDescriptor } from './owned-descriptor.ts';
export {
  VfioContainerManager,
  type DeviceOpenOptions,
  type TargetRefreshedMapping,
  type VfioOptions,
  type VfioSnapshot,
} from './vfio/container-manager.ts';
export type { HandedDevice } from './vfio/handed-device.ts';
export type { ContainerSnapshot, VfioBackendName } from './vfio/backend.ts';
export type { DirtyTracking } from './guest/dirty-tracking.ts';
export type { VfioDevice } from './vfio/vfio-device.ts';
export type { VfioInterrupts } from './vfio/vfio-interrupts.ts';
export type { VfioRegion } from './vfio/vfio-region.ts';
export type { DeviceChunk, MigrationChunk, RamChunk } from './migration/migration-chunk.ts';
export type { DirtyLogSource, MigratingMachine, MigrationOptions } from './migration/migration-options.ts';
export {
  startMigration,
  type MigrationPhase,
  type MigrationSource,
  type RemainingData,
} from './migration/migration-source.ts';
export { startRestore, type MigrationTarget, type RestoreOptions } from './migration/migration-target.ts';
