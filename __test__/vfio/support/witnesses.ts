/**
 * Memory that no device may reach, full of a pattern: a byte of DMA that lands outside of its mapping may land here.
 */
import { NativeMemoryFile } from '#native';
import { pattern } from './rig.ts';

const LENGTH = 1 << 20;

export class Witnesses {
  readonly #expected = Buffer.from(pattern(77, LENGTH));
  readonly #buffers: Buffer[] = [];
  readonly #files: NativeMemoryFile[] = [];

  /** Takes fresh memory: pages that were freed just now would be among the first to be used again. */
  add(): void {
    this.#buffers.push(Buffer.from(this.#expected));
    const file = NativeMemoryFile.create(BigInt(LENGTH), 'witness', 0);
    file.write(0n, this.#expected);
    this.#files.push(file);
  }

  /** How many pieces of memory are not as they were. */
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
