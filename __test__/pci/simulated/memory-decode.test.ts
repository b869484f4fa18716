// What guest memory shows of a simulated device goes and comes as the device answers, whoever writes its config space.
import test from 'ava';
import { GuestMemory, MemoryFile, SimulatedIommu } from '../../../ts/index.ts';
import { throwsCode } from '../../support/errors.ts';
import { at, guest } from '../../support/pages.ts';
import { MEMORY, command, region, simulated } from './support.ts';

const BAR = 0x8000_0000n;

test('an IOMMU that loses a BAR when memory decode is off has it again when decode is on', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(16) }] });
  const other = await guest(t, { ram: [{ start: 0n, length: at(16) }] });
  const iommus = [new SimulatedIommu({ rules: 'iommufd' }), new SimulatedIommu({ rules: 'iommufd' })] as const;
  await memory.dmaMappers.addDmaMapper(iommus[0]);
  await other.dmaMappers.addDmaMapper(iommus[1]);
  const device = simulated(t, { bars: [{ index: 2, length: at(4), kind: 'memory64' }] });
  command(device, MEMORY);
  const backing = region(device, 2).backing();
  for (const each of [memory, other]) {
    const window = each.newDeviceMemory({ name: 'BAR 2', length: at(4) });
    await window.map({ offset: 0n, length: at(4), backing });
    await window.mapToGuest(BAR);
  }
  const states = (): unknown[] =>
    [memory, other].map((each) => each.inspect().targets[0]?.mappings.find(({ kind }) => kind === 'device')?.state);
  const settled = async (): Promise<void> => {
    for (const each of [memory, other]) await each.newDeviceMemory({ name: 'after it', length: at(1) }).close();
  };
  t.deepEqual(states(), ['mapped', 'mapped']);
  command(device, 0);
  await settled();
  t.deepEqual(states(), ['failed', 'failed']);
  for (const iommu of iommus) throwsCode(t, () => iommu.read(BAR, 1), 'ERR_DMA_FAULT');
  command(device, MEMORY);
  await settled();
  t.deepEqual(states(), ['mapped', 'mapped']);
  for (const iommu of iommus) iommu.write(BAR, Uint8Array.of(7));
  t.deepEqual(region(device, 2).read(0n, 1), Uint8Array.of(7));
});

test('memory that was lent to a device is memory like any other when the device is gone', async (t) => {
  using file = MemoryFile.create(at(4), { name: 'lent' });
  const device = simulated(t, { bars: [{ index: 2, length: at(4), kind: 'memory64', contents: file }] });
  command(device, 0); // nobody answers for it from here on
  await device.close();
  await using memory = await GuestMemory.create();
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu, { peerToPeer: 'required' });
  const window = memory.newDeviceMemory({ name: 'another use', length: at(4) });
  await window.map({ offset: 0n, length: at(4), backing: { file, offset: 0n } });
  await window.mapToGuest(BAR);
  iommu.write(BAR, Uint8Array.of(5));
  t.deepEqual(file.read(0n, 1), Uint8Array.of(5));
});
