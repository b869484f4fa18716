/**
 * The example of a driver on a real device: registers by name, an interrupt, and a DMA buffer.
 */
import { spawnSync } from 'node:child_process';
import { extname } from 'node:path';
import { DmaBuffer } from '../../ts/driver.ts';
import { testWith } from './support/devices.ts';
import { rig } from './support/rig.ts';

testWith({ edu: 1 }, 'the example edu-factorial runs on a real device', async (t, { edu: [bdf = ''] }) => {
  const script = new URL(`../../examples/edu-factorial${extname(import.meta.url)}`, import.meta.url).pathname;
  const command = [...process.execArgv, script, bdf];
  const { status, stdout, stderr } = spawnSync(process.execPath, command, { encoding: 'utf8', timeout: 60_000 });
  t.is(status, 0, stderr);
  t.is(stdout, '10! = 3628800\nby DMA: there and back\n');
});

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
