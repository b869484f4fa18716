/**
 * Public names of the host: PCI devices, IOMMU groups and peer-to-peer topology.
 */
export { pciAddress } from './address.ts';
export {
  ACS_CONTROLS,
  type AcsControl,
  type AcsFacts,
  type AtsFacts,
  type BusNumbers,
  type PortType,
} from './config-facts.ts';
export type { CpuIdentity } from './cpu.ts';
export type { Iommu, IommuGroup, NonPciMember, ReservedRange } from './iommu.ts';
export type { LinkFacts } from './link.ts';
export type { Host, HostFinding, PciFunction, PciIds, RootBus, Unknown, VirtualFunctions } from './model.ts';
export { bridgesAbove, childrenOf, functionAt, readHost } from './read-host.ts';
export type { KernelVersion } from './system/kernel.ts';
export type { BarResource, BridgeWindow } from './resources.ts';
export { peerCandidates, peerMatrix } from './peer-to-peer/matrix.ts';
export type { Bypass, PeerCell, PeerMatrix, Reason, ReasonCode, TargetBar, Verdict } from './peer-to-peer/model.ts';
