/** The parts of a simulated device that migrate, and their numbers in its data. */
import type { MemoryFile } from '../../../memory/memory-file.ts';
import type { QueuedWrite } from './dma-queue.ts';

/** Numbers of the parts. A BAR's number is added to the last two. @internal */
export const SECTION = {
  identity: 0,
  config: 1,
  interrupts: 2,
  dma: 3,
  end: 4,
  registers: 0x100,
  memory: 0x200,
} as const;

/** A short part, which is saved and restored as a whole. @internal */
export interface StatePart {
  readonly section: number;
  save(): Uint8Array;
  /** @throws {Error} for bytes that the part cannot have */
  load(bytes: Uint8Array): void;
}

/** The memory of a BAR. @internal */
export interface MemoryPart {
  readonly section: number;
  readonly file: MemoryFile;
  /** Bytes. */
  readonly length: bigint;
}

/** Bytes before those of a queued write: address (64 bits), length (32 bits). */
const WRITE_HEADER = 12;

/** @internal */
export function encodeWrites(writes: readonly QueuedWrite[]): Uint8Array {
  return Buffer.concat(
    writes.flatMap(({ iova, bytes }) => {
      const header = Buffer.alloc(WRITE_HEADER);
      header.writeBigUInt64LE(iova, 0);
      header.writeUInt32LE(bytes.length, 8);
      return [header, bytes];
    }),
  );
}

/** @throws {RangeError} for bytes that {@link encodeWrites} does not return @internal */
export function decodeWrites(encoded: Uint8Array): QueuedWrite[] {
  const bytes = Buffer.from(encoded);
  const writes: QueuedWrite[] = [];
  for (let at = 0; at < bytes.length;) {
    const [iova, length] = [bytes.readBigUInt64LE(at), bytes.readUInt32LE(at + 8)];
    const start = at + WRITE_HEADER;
    at = start + length;
    if (at > bytes.length) throw new RangeError('a queued DMA write is cut');
    writes.push({ iova, bytes: bytes.subarray(start, at) });
  }
  return writes;
}
