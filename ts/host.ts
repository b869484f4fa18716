/**
 * `peerdma/host`: the PCI devices and IOMMUs of a machine, their topology, and their diagnosis.
 */
export { pciAddress } from './host/address.ts';
export {
  ACS_CONTROLS,
  type AcsControl,
  type AcsFacts,
  type AtsFacts,
  type BridgeBusNumbers,
  type PciePortType,
} from './host/config-facts.ts';
export type { CpuIdentity } from './host/cpu.ts';
export type { HostIommu, IommuGroup, NonPciMember, ReservedIovaRange } from './host/iommu.ts';
export type { PcieLinkFacts } from './host/link.ts';
export type {
  HostFinding,
  HostMachine,
  PciFunction,
  PciIds,
  RootBus,
  UnknownFact,
  VirtualFunctions,
} from './host/model.ts';
export { bridgesAbove, childrenOf, functionAt, readHost } from './host/read-host.ts';
export type { KernelVersion } from './host/system/kernel.ts';
export type { BarResource, BridgeWindow } from './host/resources.ts';
export {
  peerCliques,
  type DeviceWithoutClique,
  type PeerClique,
  type PeerCliqueOptions,
  type PeerCliques,
} from './host/peer-to-peer/cliques.ts';
export { nvidiaCliques, type NvidiaCliqueOptions } from './host/peer-to-peer/nvidia-cliques.ts';
export { peerCandidates, peerMatrix } from './host/peer-to-peer/matrix.ts';
export type {
  IommuBypass,
  PeerCell,
  PeerMatrix,
  PeerReason,
  PeerReasonCode,
  PeerTargetBar,
  PeerVerdict,
} from './host/peer-to-peer/model.ts';
export { diagnose, type DiagnoseOptions } from './doctor/diagnose.ts';
export type {
  BarDiagnosis,
  DeviceDiagnosis,
  Diagnosis,
  DoctorFinding,
  DoctorFindingId,
  DoctorFindingState,
} from './doctor/finding.ts';
