/** A simulated GPU of NVIDIA with small BARs, placed in a guest. */
import { AddressRange, AssignedDevice, type AssignedDeviceOptions } from '../../../ts/index.ts';
import { SimulatedDevice } from '../../../ts/testing.ts';
import { recorded } from '../config/recorded/load.ts';
import { type Fixture, MiB } from './fixture.ts';
import { command, writeBar32 } from './guest.ts';

/** The guest address of BAR 0. */
export const BAR_0 = 0xe000_0000n;
/** The offset at which NVIDIA's GPUs repeat config space in BAR 0. */
export const MIRROR = 0x8_8000n;
/** The offset of the MSI capability. */
export const MSI = 0x68;

/** IDs, class and capabilities of {@link recorded} `written-gpu`; BAR 0 has 1 MiB. */
export function simulatedGpu(): SimulatedDevice {
  const bars = [
    { index: 0, length: MiB },
    { index: 1, length: 2n * MiB },
    { index: 3, length: MiB },
  ];
  return new SimulatedDevice({ bdf: '0000:65:00.0', config: recorded('written-gpu').bytes, bars });
}

type Changes = Omit<AssignedDeviceOptions, 'device' | 'memory'>;

/** Assigns a GPU, places BAR 0 at {@link BAR_0} and turns memory decode on. */
export async function placedGpu(
  t: { teardown: (act: () => Promise<void>) => void },
  { memory }: Fixture,
  changes: Changes,
): Promise<{ gpu: AssignedDevice; device: SimulatedDevice }> {
  const device = simulatedGpu();
  const gpu = await AssignedDevice.create({ device, memory, ...changes });
  t.teardown(() => gpu.close());
  await writeBar32(gpu, 0, BAR_0);
  await command(gpu, 2);
  return { gpu, device };
}

/** The mapped and the trapped parts of BAR 0 as text, relative to its start. */
export function partsOf(gpu: AssignedDevice): { mapped: string[]; trapped: string[] } {
  const [bar] = gpu.status();
  const start = bar?.range?.start ?? 0n;
  const text = (range: AddressRange): string => String(AddressRange.of(range.start - start, range.length));
  return {
    mapped: bar?.mapped.map(text) ?? [],
    trapped: bar?.trapped.map(({ range, reason }) => `${text(range)}: ${reason}`) ?? [],
  };
}
