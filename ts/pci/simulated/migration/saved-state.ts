/** Reads the state of a simulated device as migration data. */
import { fileMemoryOf } from '../../../memory/memory-file.ts';
import { native } from '../../../native-call.ts';
import { type MemoryPart, SECTION, type StatePart } from './device-parts.ts';
import { recordHeader, shortRecord } from './records.ts';

/** Bytes of memory in a chunk. */
const CHUNK = 1 << 20;
/** Bytes that are compared and copied again if they differ. */
const PAGE = 4096;

/** A session of data: what was read so far, and what follows. @internal */
export class SavedState {
  readonly #identity: Uint8Array;
  readonly #memory: readonly MemoryPart[];
  readonly #parts: readonly StatePart[];
  /** The bytes of memory that were read while the device ran, by section. */
  readonly #copies = new Map<number, Uint8Array>();
  /** The chunks that follow, in order. */
  readonly #passes: Generator<Uint8Array>[] = [];
  /** Memory for chunks of the caller, if it has given one. */
  #buffer: Uint8Array | undefined;
  /** Bytes of the first pass that were not read. */
  #initial: bigint;

  /** @param isRunning whether the device runs: its memory may change after it was read */
  constructor(identity: Uint8Array, memory: readonly MemoryPart[], parts: readonly StatePart[], isRunning: boolean) {
    this.#identity = shortRecord(SECTION.identity, identity);
    this.#memory = memory;
    this.#parts = parts;
    this.#initial = memory.reduce((sum, { length }) => sum + length, BigInt(this.#identity.length));
    this.#passes.push(this.#first(isRunning));
  }

  /** Bytes of initial data that were not read. */
  get initial(): bigint {
    return this.#initial;
  }

  /** Bytes of memory that changed since they were read. */
  get dirty(): bigint {
    let pages = 0;
    for (const part of this.#memory) for (const _ of this.#changes(part)) pages++;
    return BigInt(pages * PAGE);
  }

  /** Adds the chunks of a device that was stopped: changed memory, and everything else. */
  stop(): void {
    this.#passes.push(this.#changed(), this.#last());
  }

  /** Yields the chunks that follow. Those of changed memory follow once, if the device still runs. */
  *chunks(isRunning: boolean, buffer?: Uint8Array): Generator<Uint8Array> {
    this.#buffer = buffer;
    if (isRunning && this.#passes.length === 0) this.#passes.push(this.#changed());
    for (let pass = this.#passes[0]; pass !== undefined; pass = this.#passes[0]) {
      const { value, done } = pass.next();
      if (done === true) this.#passes.shift();
      else yield value;
    }
  }

  *#first(isRunning: boolean): Generator<Uint8Array> {
    this.#initial -= BigInt(this.#identity.length);
    yield this.#identity;
    for (const { section, file, length } of this.#memory) {
      yield recordHeader(section, 0n, length);
      const copy = isRunning ? new Uint8Array(Number(length)) : undefined;
      if (copy !== undefined) this.#copies.set(section, copy);
      for (let at = 0n; at < length;) {
        const bytes = this.#newChunk(length - at);
        native(() => fileMemoryOf(file).handle.read(at, bytes));
        copy?.set(bytes, Number(at));
        at += BigInt(bytes.length);
        this.#initial -= BigInt(bytes.length);
        yield bytes;
      }
    }
  }

  #newChunk(rest: bigint): Uint8Array {
    const length = Math.min(this.#buffer?.length ?? CHUNK, CHUNK);
    const needed = rest < BigInt(length) ? Number(rest) : length;
    return this.#buffer?.subarray(0, needed) ?? new Uint8Array(needed);
  }

  *#changed(): Generator<Uint8Array> {
    for (const part of this.#memory) {
      const copy = this.#copies.get(part.section);
      for (const { at, bytes } of this.#changes(part)) {
        copy?.set(bytes, at);
        yield Buffer.concat([recordHeader(part.section, BigInt(at), BigInt(bytes.length)), bytes]);
      }
    }
  }

  *#last(): Generator<Uint8Array> {
    for (const part of this.#parts) yield shortRecord(part.section, part.save());
    yield shortRecord(SECTION.end, new Uint8Array());
  }

  /** Yields the pages of memory that differ from their copy. */
  *#changes({ section, file }: MemoryPart): Generator<{ at: number; bytes: Uint8Array }> {
    const copy = this.#copies.get(section);
    if (copy === undefined) return;
    for (let from = 0; from < copy.length; from += CHUNK) {
      const now = file.read(BigInt(from), Math.min(CHUNK, copy.length - from));
      if (Buffer.compare(now, copy.subarray(from, from + now.length)) === 0) continue;
      for (let at = 0; at < now.length; at += PAGE) {
        const bytes = now.subarray(at, at + PAGE);
        if (Buffer.compare(bytes, copy.subarray(from + at, from + at + bytes.length)) !== 0)
          yield { at: from + at, bytes };
      }
    }
  }
}
