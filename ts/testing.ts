/**
 * `peerdma/testing`: a simulated IOMMU, devices and a bus. They follow the rules of the kernel and of VFIO.
 */
export { SimulatedIommu, type SimulatedIommuOptions } from './dma/simulated-iommu.ts';
export type { IommuRulesName } from './dma/iommu-rules.ts';
export { SimulatedDevice, type SimulatedEduOptions } from './pci/simulated/simulated-device.ts';
export { SimulatedBus } from './pci/simulated/simulated-bus.ts';
export type {
  SimulatedBar,
  SimulatedDeviceOptions,
  SimulatedDma,
  SimulatedIds,
  SimulatedMigrationOptions,
  SimulatedMsix,
  SimulatedRegisters,
} from './pci/simulated/options.ts';
