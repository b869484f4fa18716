// A block of a file is unmapped when it is closed, but never while its bytes are in use.
import test from 'ava';
import { readFileSync } from 'node:fs';
import { NativeFilePool, NativeMemoryFile, memorySettled } from '#native';
import { PAGE } from '../support/pages.ts';

const SIZE = 1n << 30n;

async function mappingsOf(name: string): Promise<number> {
  await memorySettled();
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(name)).length;
}

function blockOf(name: string) {
  const file = NativeMemoryFile.create(4n * PAGE, name, 0);
  const block = file.blockAround(2n * PAGE, SIZE);
  if (block === null) throw new Error('no block');
  const buffer = block.buffer();
  file.close();
  return { block, buffer };
}

test('maps the block around a byte, limited to the file', (t) => {
  const file = NativeMemoryFile.create(4n * PAGE, 'cut', 0);
  file.write(3n * PAGE, Uint8Array.of(9));
  const block = file.blockAround(3n * PAGE, 2n * PAGE);
  t.is(block?.start, 2n * PAGE);
  t.is(new Uint8Array(block?.buffer() ?? new ArrayBuffer(0))[Number(PAGE)], 9);
  t.throws(() => file.blockAround(4n * PAGE, SIZE), { code: 'ERR_OUT_OF_RANGE' });
  t.throws(() => file.blockAround(0n, 5n), { code: 'ERR_INVALID_ARGUMENT' });
});

test('maps no block of a file that can be truncated, or of a part of a pool', (t) => {
  const file = NativeMemoryFile.create(PAGE, 'sealed', 0);
  t.is(NativeMemoryFile.fromFd(file.fd).blockAround(0n, SIZE), null);
  const piece = new NativeFilePool('pool').take(PAGE);
  t.is(piece.blockAround(piece.partOffset, SIZE), null);
});

test('closing a block detaches its buffer and unmaps the bytes', async (t) => {
  const { block, buffer } = blockOf('closed-block');
  const bytes = new Uint8Array(buffer);
  bytes[5] = 7;
  t.is(await mappingsOf('closed-block'), 1);
  block.close(buffer);
  t.is(await mappingsOf('closed-block'), 0);
  t.is(bytes.length, 0);
  t.notThrows(() => block.close(buffer));
});

test('returns the same buffer of a block, even after its close', (t) => {
  const { block, buffer } = blockOf('one-buffer');
  t.throws(() => block.buffer(), { code: 'ERR_INVALID_ARGUMENT' });
  block.close(buffer);
  t.throws(() => block.buffer(), { code: 'ERR_INVALID_ARGUMENT' });
});

test('closing a block with another buffer changes nothing', async (t) => {
  const { block, buffer } = blockOf('kept-block');
  const other = blockOf('other-block');
  for (const wrong of [new ArrayBuffer(8), other.buffer, new Uint8Array(8), {}, undefined]) {
    t.notThrows(() => block.close(wrong as unknown as ArrayBuffer));
  }
  t.is(other.buffer.byteLength, Number(4n * PAGE));
  t.is(await mappingsOf('kept-block'), 1);
  block.close(buffer);
  other.block.close(other.buffer);
  t.is(await mappingsOf('kept-block'), 0);
  t.is(await mappingsOf('other-block'), 0);
});

/** Moves the bytes of a buffer into another one by a stream, which Node 20 supports too. */
async function transferred(buffer: ArrayBuffer): Promise<ArrayBufferLike> {
  const stream = new ReadableStream({
    type: 'bytes',
    start(controller) {
      controller.enqueue(new Uint8Array(buffer));
      controller.close();
    },
  });
  const { value } = await stream.getReader().read();
  if (value === undefined) throw new Error('no bytes came through');
  return value.buffer;
}

test('keeps bytes mapped whose buffer was transferred', async (t) => {
  const { block, buffer } = blockOf('moved-away');
  new Uint8Array(buffer)[0] = 4;
  const kept = await transferred(buffer);
  t.is(buffer.byteLength, 0, 'moved, not copied');
  block.close(buffer);
  t.is(await mappingsOf('moved-away'), 1);
  t.is(new Uint8Array(kept)[0], 4);
});
