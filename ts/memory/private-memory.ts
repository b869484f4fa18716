/**
 * Anonymous memory of this process alone: what the backing `'private'` becomes.
 */
import { NativePrivateMemory } from '#native';
import { native } from '../native-call.ts';

/**
 * Private memory of one mapping. It keeps its bytes while no address shows it: a region of higher priority may hide it
 * and uncover it again.
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

  close(): void {
    native(() => this.handle.close());
  }
}
