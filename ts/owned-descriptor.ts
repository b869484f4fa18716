/**
 * File descriptors: those that this process has received, and numbers or objects that callers pass.
 */
import { NativeDescriptor } from '#native';
import { readable, requireIndex } from './arguments.ts';
import { PeerDmaError } from './errors.ts';
import { native } from './native-call.ts';
import { INSPECT, objectText } from './object-text.ts';
import { PACKAGE_KEY, requirePackageKey } from './package-key.ts';
import { valueText } from './value-text.ts';

/** An object that owns a descriptor. */
export interface DescriptorOwner {
  /** The number of the descriptor. */
  readonly fd: number;
}

/**
 * A descriptor of this process.
 *
 * It is a number, or an object that owns one: an {@link OwnedDescriptor}, {@link MemoryFile}, {@link EventFd} or
 * {@link UnixSocket}, or a file handle of Node.
 */
export type DescriptorSource = number | DescriptorOwner;

/** The number of a caller's descriptor. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function descriptorNumber(source: DescriptorSource, what: string): number {
  if (typeof source === 'number') return requireIndex(source, what);
  if (typeof source === 'object' && source !== null)
    return requireIndex(
      readable(what, () => source.fd),
      what,
    );
  const text = `"${what}" is a descriptor number or an object with one, not ${valueText(source)}`;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
}

/** Duplicates a descriptor. @internal */
export let duplicateDescriptor: (fd: number) => OwnedDescriptor;
/** Makes the public object of a received descriptor. @internal */
export let newDescriptor: (handle: NativeDescriptor) => OwnedDescriptor;

/**
 * A descriptor that another process sent. Close it after use: `MemoryFile.fromFd(d.fd)`, `EventFd.fromFd(d.fd)` and
 * `UnixSocket.fromFd(d.fd)` duplicate it.
 */
export class OwnedDescriptor {
  readonly #handle: NativeDescriptor;
  #closed = false;

  static {
    newDescriptor = (handle) => new OwnedDescriptor(PACKAGE_KEY, handle);
    duplicateDescriptor = (fd) => newDescriptor(native(() => NativeDescriptor.duplicate(fd)));
  }

  private constructor(key: typeof PACKAGE_KEY, handle: NativeDescriptor) {
    requirePackageKey(key, 'UnixSocket.receive()');
    this.#handle = handle;
  }

  /** The number of the descriptor. This object owns it. @throws {PeerDmaError} `ERR_CLOSED` */
  get fd(): number {
    return native(() => this.#handle.fd);
  }

  /** Closes the descriptor. Duplicates stay open. Idempotent. */
  close(): void {
    this.#closed = true;
    native(() => this.#handle.close());
  }

  /** As {@link OwnedDescriptor.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'OwnedDescriptor', () => [
      '',
      ...(this.#closed ? ['closed'] : [`fd: ${this.fd}`, 'open']),
    ]);
  }
}
