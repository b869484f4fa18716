/**
 * Memory with a pattern that no device may reach: a DMA byte outside of its mapping may land here.
 */
import { NativeMemoryFile } from '#native';
import { pattern } from './rig.ts';

const LENGTH = 1 << 20;

export class Witnesses {
  readonly #expected = Buffer.from(pattern(77, LENGTH));
  readonly #buffers: Buffer[] = [];
  readonly #files: NativeMemoryFile[] = [];

  /** Allocates fresh memory: recently freed pages are reused first. */
  add(): void {
    this.#buffers.push(Buffer.from(this.#expected));
    const file = NativeMemoryFile.create(BigInt(LENGTH), 'witness', 0);
    file.write(0n, this.#expected);
    this.#files.push(file);
  }

  /** The number of pieces of memory that have changed. */
  get changed(): number {
    const copies = this.#files.map((file) => {
      const bytes = Buffer.alloc(LENGTH);
      file.read(0n, bytes);
      return bytes;
    });
    return [...this.#buffers, ...copies].filter((bytes) => !bytes.equals(this.#expected)).length;
  }

  get count(): number {
    return this.#buffers.length + this.#files.length;
  }
}
