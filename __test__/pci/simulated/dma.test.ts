// DMA of a simulated device: its IOMMU, its conditions, and another device's BAR.
import test, { type ExecutionContext } from 'ava';
import { AddressRange, type GuestMemory, SimulatedIommu } from '../../../ts/index.ts';
import type { SimulatedDevice } from '../../../ts/pci/simulated/simulated-device.ts';
import { throwsCode } from '../../support/errors.ts';
import { PAGE, at, guest } from '../../support/pages.ts';
import { D3_HOT, MASTER, MEMORY, PMCSR, command, region, simulated, write16 } from './support.ts';

async function busMaster(
  t: ExecutionContext,
): Promise<{ device: SimulatedDevice; memory: GuestMemory; iommu: SimulatedIommu }> {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(16) }] });
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  const device = simulated(t, { bars: [{ index: 0, length: 1n << 20n }], powerManagement: {}, iommu });
  command(device, MEMORY | MASTER);
  return { device, memory, iommu };
}

test('reads and writes guest memory as a bus master', async (t) => {
  const { device, memory } = await busMaster(t);
  device.dmaWrite(at(3) - 2n, Uint8Array.of(1, 2, 3, 4));
  t.deepEqual(memory.read(at(3) - 2n, 4), Uint8Array.of(1, 2, 3, 4));
  memory.write(at(7), Uint8Array.of(9));
  t.deepEqual(device.dmaRead(at(7), 2), Uint8Array.of(9, 0));
  t.is(device.lastFault, undefined);
});

test('rejects DMA unless the device is a bus master in D0', async (t) => {
  const { device, memory } = await busMaster(t);
  command(device, MEMORY);
  const fault = throwsCode(t, () => device.dmaWrite(0n, Uint8Array.of(1)), 'ERR_DMA_FAULT');
  t.regex(fault.message, /bus master/);
  t.is(device.lastFault, fault);
  throwsCode(t, () => device.dmaRead(0n, 1), 'ERR_DMA_FAULT');
  command(device, MASTER);
  t.notThrows(() => device.dmaRead(0n, 1), 'memory decode has no part in it');
  write16(device.config, PMCSR, D3_HOT);
  t.regex(throwsCode(t, () => device.dmaWrite(0n, Uint8Array.of(1)), 'ERR_DMA_FAULT').message, /D0/);
  t.deepEqual(memory.read(0n, 1), Uint8Array.of(0));
});

test('rejects DMA without an IOMMU', (t) => {
  const device = simulated(t);
  command(device, MASTER);
  t.regex(throwsCode(t, () => device.dmaRead(0n, 1), 'ERR_DMA_FAULT').message, /no IOMMU/);
});

test('records the last fault until the device is reset', async (t) => {
  const { device, memory } = await busMaster(t);
  const first = throwsCode(t, () => device.dmaWrite(at(16) - 1n, Uint8Array.of(1, 2)), 'ERR_DMA_FAULT');
  t.is(device.lastFault, first);
  t.regex(first.message, /0x10000/);
  t.deepEqual(memory.read(at(16) - 1n, 1), Uint8Array.of(0));
  device.dmaRead(0n, 1);
  t.is(device.lastFault, first);
  const wrapping = throwsCode(t, () => device.dmaRead((1n << 64n) - 1n, 2), 'ERR_DMA_FAULT');
  t.is(device.lastFault, wrapping);
  t.regex(wrapping.message, /64-bit/);
  throwsCode(t, () => device.dmaRead(-1n, 2), 'ERR_INVALID_ARGUMENT');
  t.is(device.lastFault, wrapping, 'that was no DMA');
  await device.reset();
  t.is(device.lastFault, undefined);
});

test('passes unknown errors of an IOMMU through', (t) => {
  const bug = new TypeError('a bug');
  const iommu = {
    read: () => {
      throw bug;
    },
    write: () => {},
  };
  const device = simulated(t, { iommu });
  command(device, MASTER);
  t.is(
    t.throws(() => device.dmaRead(0n, 1)),
    bug,
  );
  t.is(device.lastFault, undefined);
});

test('reaches the BAR of another device at its guest address', async (t) => {
  const { device, memory } = await busMaster(t);
  const peer = simulated(t, { bdf: '0000:00:07.0', bars: [{ index: 2, length: at(4), kind: 'memory64' }] });
  const bar = region(peer, 2);
  const window = memory.newDeviceMemory({ name: 'BAR 2', length: at(4) });
  await window.addMapping({ range: AddressRange.of(0n, at(4)), backing: bar.backing() });
  await window.mapToGuest(0x8000_0000n);
  device.dmaWrite(0x8000_0000n + PAGE, Uint8Array.of(1, 2, 3));
  t.deepEqual(bar.read(PAGE, 3), Uint8Array.of(1, 2, 3));
  bar.write32(0n, 0x01020304);
  t.deepEqual(device.dmaRead(0x8000_0000n, 4), Uint8Array.of(4, 3, 2, 1));
  await window.mapToGuest(0x9000_0000n);
  throwsCode(t, () => device.dmaRead(0x8000_0000n, 4), 'ERR_DMA_FAULT');
  t.deepEqual(device.dmaRead(0x9000_0000n, 4), Uint8Array.of(4, 3, 2, 1));
  // Closed under the mapping, the memory stays until it is unmapped.
  await peer.close();
  t.deepEqual(device.dmaRead(0x9000_0000n, 4), Uint8Array.of(4, 3, 2, 1));
  await window.unmapFromGuest();
  throwsCode(t, () => device.dmaRead(0x9000_0000n, 4), 'ERR_DMA_FAULT');
});
