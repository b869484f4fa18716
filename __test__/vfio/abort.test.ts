// Calls on real devices that a signal aborts while they are in the kernel.
import { getEventListeners } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { DmaBuffer } from '../../ts/driver.ts';
import { testWith } from './support/devices.ts';
import { openVfioFiles } from './support/open-files.ts';
import { rig } from './support/rig.ts';

/** Bytes that are mapped on a worker thread, so that an abort can come meanwhile. */
const LONG = 32n << 20n;
const REASON = new Error('the reason of the abort');

/** Starts a call, and aborts it when it has begun. */
async function abortInside(start: (signal: AbortSignal) => Promise<unknown>): Promise<unknown> {
  const controller = new AbortController();
  const { signal } = controller;
  const pending = start(signal).then(
    () => 'fulfilled',
    (error: unknown) => error,
  );
  // A call stops listening when it begins.
  while (getEventListeners(signal, 'abort').length > 0) await turn();
  controller.abort(REASON);
  return pending;
}

testWith({ any: 1 }, 'closes a device whose opening is aborted in the kernel', async (t, { any: [bdf = ''] }) => {
  const { manager, memory } = await rig(t);
  t.is(await abortInside((signal) => manager.open(bdf, { signal })), REASON);
  t.deepEqual(openVfioFiles(), []);
  t.deepEqual(manager.inspect().containers, []);
  t.deepEqual(memory.inspect().targets, []);
  const device = await manager.open(bdf);
  t.is(device.bdf, bdf, 'it can be opened again');
});

testWith({ any: 1 }, 'unmaps a DMA buffer whose allocation is aborted', async (t, { any: [bdf = ''] }) => {
  const { manager, memory, open } = await rig(t);
  await open(bdf);
  const mappings = (): number | undefined => manager.inspect().containers[0]?.mappings;
  const before = mappings();
  t.is(await abortInside((signal) => DmaBuffer.allocate(memory, LONG, { signal })), REASON);
  t.is(mappings(), before);
  t.is(memory.inspect().regions.length, 1);
});

testWith({ nvme: 1 }, 'completes a reset that is aborted in the kernel', async (t, { nvme: [bdf = ''] }) => {
  const { open } = await rig(t);
  const device = await open(bdf);
  t.is(await abortInside((signal) => device.reset({ signal })), REASON);
  t.notThrows(() => device.regions[0]?.read32(0n), 'it decodes');
  await device.reset();
});
