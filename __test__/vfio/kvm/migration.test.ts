/**
 * A running guest of KVM migrates together with a device that writes to its RAM. The device is simulated: no device of
 * the testbed both does DMA and migrates.
 */
import { setTimeout } from 'node:timers/promises';
import test from 'ava';
import { GuestMemory, startMigration, startRestore } from '../../../ts/index.ts';
import { SimulatedDevice, SimulatedIommu } from '../../../ts/testing.ts';
import { Code } from './support/machine-code.ts';
import { FREE, RAM_LENGTH, smallGuest } from './support/small-guest.ts';

const PAGE = 0x1000n;
/** The page that the device writes. */
const WRITTEN = FREE + 40n * PAGE;

test.serial('RAM that a running guest and a device write arrives as it was when both stopped', async (t) => {
  const code = new Code();
  const start = code.length;
  for (let page = 0n; page < 16n; page++) code.rbx(FREE + page * PAGE).increment();
  code.jump(start);
  const { vm, memory } = await smallGuest(t, code);
  const target = await GuestMemory.create({ ram: [{ start: 0n, length: RAM_LENGTH }] });
  t.teardown(() => target.close());
  const device = async (guestMemory: GuestMemory, bdf: string): Promise<SimulatedDevice> => {
    const iommu = new SimulatedIommu();
    await guestMemory.dmaMappers.addDmaMapper(iommu);
    const made = new SimulatedDevice({ bdf, iommu, resettable: true, migration: {} });
    made.config.write(4n, Uint8Array.of(6, 0));
    t.teardown(() => made.close());
    return made;
  };
  const nic = await device(memory, '0000:00:01.0');
  for (let n = 0; n < 3000; n++) nic.queueDmaWrite(WRITTEN + BigInt(n), Uint8Array.of(n));

  const run = vm.run();
  await using source = await startMigration({ memory, devices: { nic }, machine: vm });
  await using restore = await startRestore({
    memory: target,
    devices: { nic: await device(target, '0000:00:02.0') },
  });
  for (let round = 0; round < 4; round++) {
    for await (const chunk of source.preCopy()) await restore.write(chunk);
    await setTimeout(20);
  }
  const { ram } = await source.remaining();
  t.true(ram >= 16n * PAGE, `the guest goes on writing: ${ram}`);
  t.true(ram <= 20n * PAGE, `only the pages that were written: ${ram}`);
  await source.stop();
  t.is(vm.state, 'paused');
  for await (const chunk of source.stopCopy()) await restore.write(chunk);
  const length = Number(RAM_LENGTH);
  t.deepEqual(Buffer.compare(target.read(0n, length), memory.read(0n, length)), 0);
  t.true(memory.read64(FREE) > 0n);
  t.true(memory.read8(WRITTEN + 1n) === 1, 'the device has written');

  await source.close(); // cancelled: both run again
  t.is(vm.state, 'running');
  const before = memory.read64(FREE);
  while (memory.read64(FREE) === before) await setTimeout(1);
  vm.stop('end');
  t.is(await run, 'end');
});
