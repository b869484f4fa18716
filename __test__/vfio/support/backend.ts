/**
 * The back end that the tests of this run go through: `PEERDMA_VFIO_BACKEND`, type1 by default. `auto` has tests of its own.
 */
import { type VfioBackendName, type GuestMemory, type PeerToPeer, VfioContainerManager } from '../../../ts/index.ts';
import { IOMMU_RULES, type IommuRules } from '../../../ts/dma/iommu-rules.ts';

export const BACKEND: VfioBackendName = process.env['PEERDMA_VFIO_BACKEND'] === 'iommufd' ? 'iommufd' : 'type1';

/** Where the back ends differ. */
export const RULES: IommuRules = IOMMU_RULES[BACKEND === 'type1' ? 'type1v2' : 'iommufd'];

export function newManager(memory: GuestMemory, options: { peerToPeer?: PeerToPeer } = {}): VfioContainerManager {
  return new VfioContainerManager(memory, { ...options, backend: BACKEND });
}
