// Reads of more bytes than an ArrayBuffer can have are rejected before memory is allocated.
import test from 'ava';
import { constants } from 'node:buffer';
import { AddressRange, MemoryFile } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { DirtyPages } from '../../ts/dma/dirty-pages.ts';
import { openHostMemory } from '../../ts/memory/host-memory.ts';
import { throwsCode } from '../support/errors.ts';
import { guest } from '../support/pages.ts';

const PAGE = 4096n;
const LENGTH = (BigInt(constants.MAX_LENGTH) / PAGE + 2n) * PAGE;
const LONG = Number(LENGTH);

test('rejects a read longer than an ArrayBuffer', async (t) => {
  const file = MemoryFile.create(LENGTH, { name: 'long' });
  t.teardown(() => file.close());
  const start = 1n << 32n;
  const memory = await guest(t, { ram: [{ start, length: LENGTH, file, prefault: false }], addressWidth: 36 });
  const iommu = new SimulatedIommu({ rules: 'iommufd' });
  await memory.dmaMappers.addDmaMapper(iommu);
  const held = openHostMemory({} as never, 0, AddressRange.of(start, LENGTH)); // it is never called
  const reads: [string, (length: number) => unknown][] = [
    ['guest memory', (length) => memory.read(start, length)],
    ['a file', (length) => file.read(0n, length)],
    ['an IOMMU', (length) => iommu.read(start, length)],
    ['host memory', (length) => held.read(0n, length)],
  ];
  for (const [what, read] of reads) {
    const { message } = throwsCode(t, () => read(LONG), 'ERR_OUT_OF_RANGE', what);
    t.true(message.includes(String(constants.MAX_LENGTH)), `${what}: ${message}`);
  }
});

test('rejects a range with more pages than a bitmap can have', (t) => {
  const most = (1n << 31n) - 1n;
  for (const length of [(most + 1n) * PAGE, 1n << 63n]) {
    const { message } = throwsCode(t, () => new DirtyPages(AddressRange.of(0n, length), PAGE), 'ERR_OUT_OF_RANGE');
    t.true(message.includes(String(most)), message);
  }
  t.is(new DirtyPages(AddressRange.of(0n, 65n * PAGE), PAGE).bitmap.length, 2);
});
