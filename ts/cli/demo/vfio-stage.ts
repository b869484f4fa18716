/**
 * The demo on VFIO devices. The first one does DMA, the second one has the BAR, an optional third one joins late in a
 * container of its own. The first and the third must be QEMU's edu, whose driver is in `edu-driver.ts`.
 */
import { type GuestMemory, PeerDmaError, VfioContainerManager, type VfioDevice } from '../../index.ts';
import { SimulatedIommu } from '../../testing.ts';
import { Edu, EDU_ID } from './edu-driver.ts';
import type { Initiator, LateTarget, Peer, Stage } from './stage.ts';

/** Address in RAM from which the device copies the bytes of a write. */
const SCRATCH = 0x20_0000n;

/** @param addresses PCI addresses of two or three devices */
export function vfioStage(memory: GuestMemory, addresses: readonly string[]): Stage {
  const [first = '', second = '', third] = addresses;
  const manager = new VfioContainerManager(memory);
  const lateManager = new VfioContainerManager(memory);
  return {
    start: async () => {
      const a = await manager.open(first);
      const b = await manager.open(second);
      return { a: initiator(memory, a), b: peer(b) };
    },
    join: async () => (third === undefined ? lateSimulatedTarget(memory) : lateVfioTarget(memory, lateManager, third)),
    [Symbol.asyncDispose]: async () => {
      await lateManager.close();
      await manager.close();
    },
  };
}

function initiator(memory: GuestMemory, device: VfioDevice): Initiator {
  if (device.config.read32(0n) !== EDU_ID) {
    const remedy = "Name QEMU's edu (1234:11e8), for which the demo has a driver.";
    throw new PeerDmaError('ERR_UNSUPPORTED', `${device.bdf}: DMA failed: it is not an edu device. ${remedy}`, {
      bdf: device.bdf,
    });
  }
  const edu = new Edu(device);
  const write = async (iova: bigint, bytes: Uint8Array): Promise<void> => {
    memory.write(SCRATCH, bytes);
    await edu.copy(SCRATCH, iova, bytes.length);
  };
  return {
    name: `edu ${device.bdf}`,
    write,
    tryWrite: async (iova, bytes) => {
      await write(iova, bytes);
      return 'sent; a real device does not report a fault';
    },
  };
}

function peer(device: VfioDevice): Peer {
  const bar = device.regions
    .slice(0, 6)
    .filter((region) => region !== undefined)
    .find(({ length, mmapAreas }) =>
      mmapAreas.some((area) => area.start === 0n && area.end === length && length >= 0x1000n),
    );
  if (bar === undefined) {
    const remedy = 'Name a device with such a BAR, for example ivshmem.';
    const message = `${device.bdf}: mapping a BAR failed: no BAR can be mapped as a whole. ${remedy}`;
    throw new PeerDmaError('ERR_NO_SUCH_REGION', message, { bdf: device.bdf });
  }
  return {
    name: device.bdf,
    length: bar.length,
    backing: bar.backing(),
    read: (length) => bar.read(0n, length),
    clear: (length) => bar.write(0n, new Uint8Array(length)),
  };
}

async function lateVfioTarget(memory: GuestMemory, manager: VfioContainerManager, bdf: string): Promise<LateTarget> {
  const device = await manager.open(bdf);
  const container = manager.inspect().containers[0]?.name;
  return {
    name: container ?? device.bdf,
    device: initiator(memory, device),
    mapped: () =>
      memory
        .inspect()
        .targets.filter(({ name }) => name === container)
        .flatMap(({ mappings }) => mappings.filter(({ state }) => state === 'mapped'))
        .map(({ start, end }) => `${start}..${end}`),
  };
}

/** Adds a simulated container without a device, because the command line names only two devices. */
async function lateSimulatedTarget(memory: GuestMemory): Promise<LateTarget> {
  const iommu = new SimulatedIommu({ name: 'simulated container' });
  await memory.dmaMappers.addDmaMapper(iommu);
  return {
    name: iommu.name,
    device: undefined,
    mapped: () => iommu.mappings().map(({ range }) => range.toString()),
  };
}
