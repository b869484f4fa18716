// DMA of a device through the simulated IOMMU.
import test from 'ava';
import type { AddressRange } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { throwsCode } from '../support/errors.ts';
import { requests } from '../support/leased-requests.ts';
import { at, PAGE, pages } from '../support/pages.ts';

test('reads and writes across adjacent mappings', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu();
  const [low, high] = [await request(pages(4, 1)), await request(pages(5, 2))];
  iommu.mapDma(high);
  iommu.mapDma(low);
  low.hostMemory?.write(PAGE - 2n, Uint8Array.of(1, 2));
  high.hostMemory?.write(0n, Uint8Array.of(3, 4));
  t.deepEqual(iommu.read(at(5) - 2n, 4), Uint8Array.of(1, 2, 3, 4));
  iommu.write(at(5) - 1n, Uint8Array.of(8, 9));
  t.deepEqual(low.hostMemory?.read(PAGE - 2n, 2), Uint8Array.of(1, 8));
  t.deepEqual(high.hostMemory?.read(0n, 2), Uint8Array.of(9, 4));
  iommu.write(at(7) - 1n, Uint8Array.of(6));
  t.deepEqual(high.hostMemory?.read(2n * PAGE - 1n, 1), Uint8Array.of(6));
});

test('faults at an unmapped address and writes no byte', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu({ name: 'sim' });
  const [low, high] = [await request(pages(1, 1)), await request(pages(3, 1))];
  iommu.mapDma(low);
  iommu.mapDma(high);
  const fault = throwsCode(t, () => iommu.write(at(2) - 4n, new Uint8Array(8).fill(7)), 'ERR_DMA_FAULT');
  t.is(fault.target, 'sim');
  t.is(String(fault.range), '0x1ffc..0x2004');
  t.regex(fault.message, /write.*0x2000/);
  t.deepEqual(low.hostMemory?.read(PAGE - 4n, 4), new Uint8Array(4));
  throwsCode(t, () => iommu.write(at(2) - 4n, new Uint8Array(4096 + 8).fill(7)), 'ERR_DMA_FAULT');
  t.deepEqual(low.hostMemory?.read(PAGE - 4n, 4), new Uint8Array(4));
  t.deepEqual(high.hostMemory?.read(0n, 4), new Uint8Array(4));
  for (const [iova, length] of [
    [0n, 1],
    [at(1) - 1n, 2],
    [at(2), 1],
    [at(2) - 1n, 2],
    [at(4) - 1n, 2],
    [at(64), 1],
  ] as const) {
    throwsCode(t, () => iommu.read(iova, length), 'ERR_DMA_FAULT', `${iova}`);
  }
});

test('faults on a write to a read-only mapping and writes no byte', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu();
  const [low, high] = [await request(pages(1, 1)), await request(pages(2, 1), { writable: false })];
  iommu.mapDma(low);
  iommu.mapDma(high);
  const fault = throwsCode(t, () => iommu.write(at(2) - 2n, Uint8Array.of(1, 2, 3, 4)), 'ERR_DMA_FAULT');
  t.regex(fault.message, /0x2000\.\.0x3000.*reading only/);
  t.deepEqual(low.hostMemory?.read(PAGE - 2n, 2), Uint8Array.of(0, 0));
  t.deepEqual(iommu.read(at(2) - 2n, 4), new Uint8Array(4));
});

test('faults after the unmap', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu();
  iommu.mapDma(await request(pages(1, 1)));
  iommu.read(at(1), 1);
  iommu.unmapDma(pages(1, 1));
  throwsCode(t, () => iommu.read(at(1), 1), 'ERR_DMA_FAULT');
});

test('accepts DMA of zero bytes', (t) => {
  const iommu = new SimulatedIommu();
  t.deepEqual(iommu.read(0n, 0), new Uint8Array(0));
  t.notThrows(() => iommu.write(0n, new Uint8Array(0)));
});

test('rejects invalid DMA addresses', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu();
  iommu.mapDma(await request(pages(0, 1)));
  const wrong = <T>(value: unknown): T => value as T;
  for (const iova of [0, NaN, -1n, '0', undefined]) {
    throwsCode(t, () => iommu.read(wrong(iova), 1), 'ERR_INVALID_ARGUMENT', `iova ${String(iova)}`);
    throwsCode(t, () => iommu.write(wrong(iova), Uint8Array.of(1)), 'ERR_INVALID_ARGUMENT', `iova ${String(iova)}`);
  }
  throwsCode(t, () => iommu.read((1n << 64n) - 1n, 2), 'ERR_OUT_OF_RANGE');
});

test('rejects invalid DMA lengths and bytes', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu();
  iommu.mapDma(await request(pages(0, 1)));
  const wrong = <T>(value: unknown): T => value as T;
  for (const length of [NaN, -1, 1.5, Infinity, '1', 1n]) {
    throwsCode(t, () => iommu.read(0n, wrong(length)), 'ERR_INVALID_ARGUMENT', `length ${String(length)}`);
  }
  for (const bytes of ['abc', [1], 5, undefined, new Uint16Array(1)]) {
    throwsCode(t, () => iommu.write(0n, wrong(bytes)), 'ERR_INVALID_ARGUMENT', `bytes ${String(bytes)}`);
  }
});

test('lists mappings in order of IOVA', async (t) => {
  const request = await requests(t);
  const iommu = new SimulatedIommu();
  const ranges: AddressRange[] = [pages(8, 1), pages(0, 2), pages(4, 1)];
  for (const range of ranges) iommu.mapDma(await request(range, { name: `at ${range.start}`, kind: 'device' }));
  t.deepEqual(iommu.mappings(), [
    { range: pages(0, 2), kind: 'device', region: 'at 0', state: 'mapped' },
    { range: pages(4, 1), kind: 'device', region: 'at 16384', state: 'mapped' },
    { range: pages(8, 1), kind: 'device', region: 'at 32768', state: 'mapped' },
  ]);
});
