/**
 * A worker maps part of a file and sends the bytes to the main thread, which uses them after the worker has ended.
 * A program of its own: a view that is unmapped too early ends the process with a signal.
 */
import { once } from 'node:events';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { MemoryFile, viewFile } from '../../../ts/memory/memory-file.ts';

const LENGTH = 65_536n;
const [, , how = workerData as string] = process.argv;

/** Moves the bytes to a buffer that can be transferred: Node 20 has no `transfer`, but byte streams. */
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
  const [buffer] = (await once(worker, 'message')) as [ArrayBuffer];
  const ended = once(worker, 'exit');
  if (how === 'terminate') await worker.terminate();
  else worker.postMessage('end');
  await ended;
  const bytes = new Uint8Array(buffer);
  bytes[1] = 7;
  process.stdout.write(JSON.stringify([bytes.length, bytes[0], bytes[1]]));
} else {
  const file = MemoryFile.create(LENGTH, { name: 'viewed by a worker' });
  file.write(0n, Uint8Array.of(42));
  const buffer = await move(viewFile(file, 0n, LENGTH));
  file.close();
  parentPort?.postMessage(buffer, [buffer]);
  parentPort?.once('message', () => {
    if (how === 'exit') process.exit(0);
    parentPort?.close();
  });
}
