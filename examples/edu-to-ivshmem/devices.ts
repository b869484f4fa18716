/**
 * The two devices of the example, simulated or physical. The code that drives them is the same.
 */
import { type GuestMemory, type PhysicalFunction, VfioContainerManager } from 'peerdma';
import { SimulatedDevice, SimulatedIommu } from 'peerdma/testing';

export interface DevicePair extends AsyncDisposable {
  /** The device that does DMA. */
  readonly edu: PhysicalFunction;
  /** The device with memory in BAR 2. */
  readonly peer: PhysicalFunction;
}

/** An edu, and a device with 16 MiB of memory, behind a simulated IOMMU. */
export async function simulatedPair(memory: GuestMemory): Promise<DevicePair> {
  const iommu = new SimulatedIommu({ name: 'simulated container' });
  const handle = await memory.dmaMappers.addDmaMapper(iommu);
  return {
    edu: SimulatedDevice.edu({ bdf: '0000:00:04.0', iommu }),
    peer: new SimulatedDevice({
      bdf: '0000:00:06.0',
      bars: [{ index: 2, length: 16n << 20n, kind: 'memory64', prefetchable: true }],
    }),
    [Symbol.asyncDispose]: () => handle.remove(),
  };
}

/** Two devices that are bound to vfio-pci, in one container if their IOMMUs allow it. */
export async function vfioPair(memory: GuestMemory, addresses: readonly string[]): Promise<DevicePair> {
  const [edu, peer] = addresses;
  if (edu === undefined || peer === undefined || addresses.length > 2)
    throw new Error('two PCI addresses are needed, of an edu and of an ivshmem: edu-to-ivshmem.ts BDF BDF');
  const vfio = new VfioContainerManager(memory);
  try {
    return {
      edu: await vfio.open(edu),
      peer: await vfio.open(peer),
      [Symbol.asyncDispose]: () => vfio.close(),
    };
  } catch (error) {
    await vfio.close();
    throw error;
  }
}
