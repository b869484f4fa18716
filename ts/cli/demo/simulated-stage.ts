/**
 * The demo without hardware: a `SimulatedIommu` for the DMA of each device, and a memfd for the BAR.
 */
import { type DmaMapperHandle, type GuestMemory, MemoryFile, PeerDmaError } from '../../index.ts';
import { SimulatedIommu } from '../../testing.ts';
import type { Initiator, Stage } from './stage.ts';

const BAR_LENGTH = 1n << 20n;

export function simulatedStage(memory: GuestMemory): Stage {
  const handles: DmaMapperHandle[] = [];
  const file = MemoryFile.create(BAR_LENGTH, { name: 'BAR of device B' });
  const join = async (name: string, container: string): Promise<{ device: Initiator; iommu: SimulatedIommu }> => {
    const iommu = new SimulatedIommu({ name: container });
    handles.push(await memory.dmaMappers.addDmaMapper(iommu));
    return { device: initiator(name, iommu), iommu };
  };
  return {
    start: async () => {
      const { device } = await join('device A', 'container 1');
      const b = {
        name: 'device B',
        length: BAR_LENGTH,
        backing: { file, offset: 0n },
        read: (length: number) => file.read(0n, length),
        clear: (length: number) => file.write(0n, new Uint8Array(length)),
      };
      return { a: device, b };
    },
    join: async () => {
      const { device, iommu } = await join('device C', 'container 2');
      return { name: iommu.name, device, mapped: () => iommu.mappings().map(({ range }) => range.toString()) };
    },
    [Symbol.asyncDispose]: async () => {
      for (const handle of handles) await handle.remove();
      file.close();
    },
  };
}

function initiator(name: string, iommu: SimulatedIommu): Initiator {
  return {
    name,
    write: async (iova, bytes) => iommu.write(iova, bytes),
    tryWrite: async (iova, bytes) => {
      try {
        iommu.write(iova, bytes);
        return undefined;
      } catch (error) {
        if (error instanceof PeerDmaError) return error.code;
        throw error;
      }
    },
  };
}
