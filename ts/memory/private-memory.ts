/**
 * Anonymous memory of this process, for the backing `'private'`.
 */
import { NativePrivateMemory } from '#native';
import { native, nativeAsync } from '../native-call.ts';

/**
 * Private memory of one mapping. It keeps its bytes while a region of higher priority covers it.
 *
 * @internal
 */
export class PrivateMemory {
  readonly handle: NativePrivateMemory;
  readonly length: bigint;

  constructor(length: bigint, transparentHugePages = false) {
    this.handle = native(() => new NativePrivateMemory(length, transparentHugePages));
    this.length = length;
  }

  read(offset: bigint, into: Uint8Array): void {
    native(() => this.handle.read(offset, into));
  }

  write(offset: bigint, bytes: Uint8Array): void {
    native(() => this.handle.write(offset, bytes));
  }

  /** Faults in a part that is not mapped in the host view. */
  async faultIn(offset: bigint, length: bigint): Promise<void> {
    await nativeAsync(() => this.handle.faultIn(offset, length));
  }

  close(): void {
    native(() => this.handle.close());
  }
}
