/**
 * A DMA buffer of a driver, on a real device.
 */
import { DmaBuffer } from '../../ts/driver.ts';
import { testWith } from './support/devices.ts';
import { rig } from './support/rig.ts';

testWith({ edu: 1 }, 'a device reaches a DMA buffer until it is closed', async (t, { edu: [bdf = ''] }) => {
  const { memory, manager, edu: openEdu } = await rig(t);
  const edu = await openEdu(bdf);
  const [one, other] = [await DmaBuffer.allocate(memory, 8192n), await DmaBuffer.allocate(memory, 100n)];
  one.bytes.set([1, 2, 3], 5000);
  await edu.copy(one.iova + 5000n, other.iova + 97n, 3);
  t.deepEqual([...other.bytes.subarray(96)], [0, 1, 2, 3]);
  t.is(manager.inspect().containers[0]?.mappings, 3, 'RAM and two buffers');
  await other.close();
  one.bytes.set([4, 5, 6], 5000);
  await edu.copy(one.iova + 5000n, other.iova + 97n, 3);
  t.deepEqual([...other.bytes.subarray(96)], [0, 1, 2, 3], 'not reached any more');
  await one.close();
  t.is(manager.inspect().containers[0]?.mappings, 1);
});
