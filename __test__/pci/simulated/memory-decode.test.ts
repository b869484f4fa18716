// Mappings of a simulated device follow its memory decode, whoever writes its config space.
import test from 'ava';
import { AddressRange, GuestMemory, MemoryFile, type SimulatedDevice, SimulatedIommu } from '../../../ts/index.ts';
import { throwsCode } from '../../support/errors.ts';
import { at, guest } from '../../support/pages.ts';
import { MEMORY, command, region, simulated } from './support.ts';

const BAR = 0x8000_0000n;

test('maps a revoked BAR again when memory decode is enabled', async (t) => {
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
    await window.addMapping({ range: AddressRange.of(0n, at(4)), backing });
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

test('treats the contents of a closed device as ordinary memory', async (t) => {
  using file = MemoryFile.create(at(4), { name: 'lent' });
  const device = simulated(t, { bars: [{ index: 2, length: at(4), kind: 'memory64', contents: file }] });
  command(device, 0); // nobody answers for it from here on
  await device.close();
  await using memory = await GuestMemory.create();
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu, { peerToPeer: 'required' });
  const window = memory.newDeviceMemory({ name: 'another use', length: at(4) });
  await window.addMapping({ range: AddressRange.of(0n, at(4)), backing: { file, offset: 0n } });
  await window.mapToGuest(BAR);
  iommu.write(BAR, Uint8Array.of(5));
  t.deepEqual(file.read(0n, 1), Uint8Array.of(5));
});

for (const rules of ['type1v2', 'iommufd'] as const) {
  test(`decodes memory separately in devices that share the contents of a BAR (${rules})`, async (t) => {
    const memory = await guest(t, { ram: [{ start: 0n, length: at(16) }] });
    const iommu = new SimulatedIommu({ rules });
    await memory.dmaMappers.addDmaMapper(iommu);
    using contents = MemoryFile.create(at(4), { name: 'shared' });
    const devices = ['0000:00:06.0', '0000:00:07.0'].map((bdf) =>
      simulated(t, { bdf, bars: [{ index: 2, length: at(4), kind: 'memory64', contents }], pcie: {} }),
    );
    const [a, b] = devices as [SimulatedDevice, SimulatedDevice];
    for (const [index, device] of devices.entries()) {
      command(device, MEMORY);
      const window = memory.newDeviceMemory({ name: `BAR of ${device.bdf}`, length: at(4) });
      await window.addMapping({ range: AddressRange.of(0n, at(4)), backing: region(device, 2).backing() });
      await window.mapToGuest(BAR + BigInt(index) * at(4));
    }
    const settled = async (): Promise<void> => memory.newDeviceMemory({ name: 'after it', length: at(1) }).close();
    const states = (): unknown[] =>
      memory.inspect().targets[0]?.mappings.flatMap(({ kind, state }) => (kind === 'device' ? [state] : [])) ?? [];
    iommu.write(BAR, Uint8Array.of(7));
    t.deepEqual(iommu.read(BAR + at(4), 1), Uint8Array.of(7), 'they share their memory');
    command(a, 0);
    await settled();
    throwsCode(t, () => memory.read8(BAR), 'ERR_BAR_DISABLED');
    t.is(memory.read8(BAR + at(4)), 7);
    t.deepEqual(iommu.read(BAR + at(4), 1), Uint8Array.of(7), 'the other device decodes memory');
    t.is(states()[1], 'mapped');
    command(a, MEMORY);
    await b.reset();
    t.deepEqual(states(), ['mapped', 'mapped']);
    await b.close();
    await settled();
    t.is(memory.read8(BAR), 7, 'the other device is open');
    t.deepEqual(iommu.read(BAR, 1), Uint8Array.of(7));
  });
}

test('rejects the memory of a device as the contents of another one', (t) => {
  const device = simulated(t, { bars: [{ index: 0, length: at(1) }] });
  const backing = region(device, 0).backing();
  if (backing === 'private') throw new Error('a BAR is a file');
  const bars = [{ index: 0, length: at(1), contents: backing.file }];
  throwsCode(t, () => simulated(t, { bdf: '0000:00:07.0', bars }), 'ERR_INVALID_ARGUMENT');
});
