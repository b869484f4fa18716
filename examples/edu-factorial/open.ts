/**
 * The edu of the example: a physical one by its PCI address, or a simulated one.
 */
import { type GuestMemory, type PhysicalFunction, VfioContainerManager } from 'peerdma';
import { SimulatedDevice, SimulatedIommu } from 'peerdma/testing';

export async function openEdu(
  memory: GuestMemory,
  bdf: string | undefined,
): Promise<AsyncDisposable & { readonly device: PhysicalFunction }> {
  if (bdf !== undefined) {
    const vfio = new VfioContainerManager(memory);
    return { device: await vfio.open(bdf), [Symbol.asyncDispose]: () => vfio.close() };
  }
  const iommu = new SimulatedIommu();
  const handle = await memory.dmaMappers.addDmaMapper(iommu);
  const device = SimulatedDevice.edu({ bdf: '0000:00:04.0', iommu });
  return {
    device,
    [Symbol.asyncDispose]: async () => {
      await device.close();
      await handle.remove();
    },
  };
}
