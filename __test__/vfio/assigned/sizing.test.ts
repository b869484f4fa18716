/**
 * Sizing of the BARs of real devices by a guest's firmware.
 */
import { type ProbedBar, barRegister } from '../../../examples/guest/firmware.ts';
import { testWith } from '../support/devices.ts';
import { Guest } from './support/guest.ts';
import { hostBars } from './support/resource-file.ts';

testWith(
  { edu: 1, ivshmem: 2, nvme: 1 },
  'firmware that writes all ones reads the BARs of the kernel',
  async (t, { edu, ivshmem, nvme }) => {
    const guest = await Guest.start(t);
    const found: Record<string, readonly ProbedBar[]> = {};
    for (const bdf of [...edu.slice(0, 1), ...ivshmem, ...nvme]) {
      const { device, firmware } = await guest.assign(bdf);
      found[bdf] = firmware.bars;
      const expected = hostBars(bdf).map(({ index, length, is64Bit, prefetchable }) => ({
        index,
        length,
        is64Bit,
        prefetchable,
      }));
      t.deepEqual(firmware.bars, expected, bdf);
      t.true(expected.length > 0);
      for (const { index, is64Bit, prefetchable } of firmware.bars) {
        const flags = (is64Bit ? 4 : 0) | (prefetchable ? 8 : 0);
        t.is(device.configRead(barRegister(index), 4), flags, `BAR ${index} of ${bdf} has no address yet`);
      }
      t.is(device.configRead(4, 2) & 7, 0, `memory decode of ${bdf} is off`);
    }
    t.true(
      Object.values(found).some((bars) => bars.some(({ length }) => length < 0x1000n)),
      'one less than a page',
    );
    t.deepEqual(
      guest.memory.inspect().flat.map(({ region }) => region),
      guest.memory.inspect().flat.flatMap(({ region, kind }) => (kind === 'ram' ? [region] : [])),
      'no BAR is mapped',
    );
  },
);
