/**
 * Public names of the host: PCI devices, IOMMU groups and peer-to-peer topology.
 */
export { pciAddress } from './address.ts';
export {
  ACS_CONTROLS,
  type AcsControl,
  type AcsFacts,
  type AtsFacts,
  type BridgeBusNumbers,
  type PciePortType,
} from './config-facts.ts';
export type { CpuIdentity } from './cpu.ts';
export type { HostIommu, IommuGroup, NonPciMember, ReservedIovaRange } from './iommu.ts';
export type { PcieLinkFacts } from './link.ts';
export type { HostMachine, HostFinding, PciFunction, PciIds, RootBus, UnknownFact, VirtualFunctions } from './model.ts';
export { bridgesAbove, childrenOf, functionAt, readHost } from './read-host.ts';
export type { KernelVersion } from './system/kernel.ts';
export type { BarResource, BridgeWindow } from './resources.ts';
export { peerCandidates, peerMatrix } from './peer-to-peer/matrix.ts';
export type {
  IommuBypass,
  PeerCell,
  PeerMatrix,
  PeerReason,
  PeerReasonCode,
  PeerTargetBar,
  PeerVerdict,
} from './peer-to-peer/model.ts';
