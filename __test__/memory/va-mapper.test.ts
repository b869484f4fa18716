/**
 * The reservation in TypeScript.
 */
import test from 'ava';
import { SimulatedIommu } from '../../ts/testing.ts';
import { VaMapper } from '../../ts/memory/va-mapper.ts';
import { throwsCode } from '../support/errors.ts';
import { PAGE, guest } from '../support/pages.ts';

test('rejects an address width beyond the process limit with a remedy', (t) => {
  const error = throwsCode(t, () => new VaMapper(47), 'ERR_ADDRESS_SPACE_LIMIT');
  t.is(error.errno, 'ENOMEM');
  t.is(error.syscall, 'mmap');
  t.regex(error.message, /addressWidth/);
});

test('DMA reaches RAM in the last page of the address space', async (t) => {
  const last = (1n << 44n) - PAGE;
  const memory = await guest(t, { addressWidth: 44, ram: [{ start: last, length: PAGE }] });
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  iommu.write(last + PAGE - 1n, Uint8Array.of(0x3c));
  t.is(memory.read(last + PAGE - 1n, 1)[0], 0x3c);
});
