/**
 * A worker maps memory and sends the bytes to the main thread. They are used after the worker has ended. The argument
 * selects how the worker ends. A program of its own: a view that is unmapped too early ends the process with a signal.
 */
import { NativeMemoryFile } from '#native';
import { once } from 'node:events';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { GuestMemory } from '../../../ts/index.ts';
import { DmaBuffer } from '../../../ts/driver.ts';
import { SimulatedIommu } from '../../../ts/testing.ts';
import { MemoryFile, fileMemoryOf } from '../../../ts/memory/memory-file.ts';

const LENGTH = 65_536n;
const how = isMainThread ? process.argv[2] : (workerData as string);

/** Each returns bytes whose first is 42, moved to a buffer that the worker can transfer. */
const SOURCES: Readonly<Record<string, () => Promise<ArrayBuffer>>> = {
  view: async () => {
    const file = MemoryFile.create(LENGTH, { name: 'viewed by a worker' });
    file.write(0n, Uint8Array.of(42));
    const buffer = await move(fileMemoryOf(file).view(0n, LENGTH));
    file.close();
    return buffer;
  },
  block: async () => {
    const file = NativeMemoryFile.create(LENGTH, 'block of a worker', 0);
    file.write(0n, Uint8Array.of(42));
    const buffer = file.blockAround(0n, LENGTH)?.buffer();
    if (buffer === undefined) throw new Error('no block');
    return move(buffer);
  },
  'closed block': async () => {
    const file = NativeMemoryFile.create(LENGTH, 'block of a worker', 0);
    file.write(0n, Uint8Array.of(42));
    const block = file.blockAround(0n, LENGTH);
    const buffer = block?.buffer();
    if (buffer === undefined) throw new Error('no block');
    const moved = await move(buffer);
    block?.close(buffer);
    file.close();
    return moved;
  },
  'DMA buffer': async () => (await dmaBuffer()).moved,
  'closed DMA buffer': async () => {
    const { memory, buffer, moved } = await dmaBuffer();
    await buffer.close();
    await memory.close();
    return moved;
  },
};

/** A buffer that a device has written, with its bytes moved. */
async function dmaBuffer(): Promise<{ memory: GuestMemory; buffer: DmaBuffer; moved: ArrayBuffer }> {
  const memory = await GuestMemory.create();
  const iommu = new SimulatedIommu();
  await memory.dmaMappers.addDmaMapper(iommu);
  const buffer = await DmaBuffer.allocate(memory, LENGTH);
  iommu.write(buffer.iova, Uint8Array.of(42));
  return { memory, buffer, moved: await move(buffer.bytes.buffer as ArrayBuffer) };
}

/** Moves the bytes to a buffer that can be transferred. Node 20 lacks `transfer`, but has byte streams. */
async function move(bytes: ArrayBuffer): Promise<ArrayBuffer> {
  const movable = bytes as ArrayBuffer & { transfer?: () => ArrayBuffer };
  if (movable.transfer !== undefined) return movable.transfer();
  const stream = new ReadableStream({
    type: 'bytes',
    start(controller) {
      controller.enqueue(new Uint8Array(bytes));
      controller.close();
    },
  });
  const { value } = (await stream.getReader().read()) as { value: Uint8Array<ArrayBuffer> };
  return value.buffer;
}

if (isMainThread) {
  const worker = new Worker(new URL(import.meta.url), { workerData: how });
  const [buffers] = (await once(worker, 'message')) as [Readonly<Record<string, ArrayBuffer>>];
  const ended = once(worker, 'exit');
  if (how === 'terminate') await worker.terminate();
  else worker.postMessage('end');
  await ended;
  const found = Object.entries(buffers).map(([what, buffer]) => {
    process.stderr.write(`reads the bytes of a ${what}\n`); // for the message if it crashes here
    const bytes = new Uint8Array(buffer);
    bytes[1] = 7;
    return [what, bytes.length, bytes[0], bytes[1]];
  });
  process.stdout.write(JSON.stringify(found));
} else {
  const buffers: Record<string, ArrayBuffer> = {};
  for (const [what, source] of Object.entries(SOURCES)) buffers[what] = await source();
  parentPort?.postMessage(buffers, Object.values(buffers));
  parentPort?.once('message', () => {
    if (how === 'exit') process.exit(0);
    parentPort?.close();
  });
}
