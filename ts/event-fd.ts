/** Eventfds: kernel counters that devices, hypervisors (irqfd, ioeventfd) and this process signal. */
import { NativeEventFd } from '#native';
import { type AbortOptions, readSignal, throwIfAborted } from './abort.ts';
import { requireIndex } from './arguments.ts';
import { PeerDmaError } from './errors.ts';
import { listenerOf, removeUndelivered, replaceListener, unwatch, watchEvent } from './event-watcher.ts';
import { keepAlive } from './keep-alive.ts';
import { native } from './native-call.ts';
import { requireBigint } from './number-types.ts';
import { INSPECT, objectText } from './object-text.ts';
import { PACKAGE_KEY, requirePackageKey } from './package-key.ts';
import { valueText } from './value-text.ts';

/** The maximum count of an eventfd (`eventfd(2)`). */
const MAX = (1n << 64n) - 2n;

// Set by the class below, for use within this package only.
/** Returns the native handle of an event. Throws if the value is not an EventFd, or is closed. @internal */
export let nativeEventFdOf: (event: EventFd) => NativeEventFd;
/** Holds an event: its descriptor stays open until it is released, as if the kernel held it. @internal */
export let holdEvent: (event: EventFd) => HeldEvent;

/** An event that can be signalled after its owner has closed it. @internal */
export interface HeldEvent {
  /** The descriptor. */
  readonly fd: number;
  /** Adds one to the count, unless the count is at its maximum. */
  signal(): void;
  /** Releases the event. Call it once. */
  release(): void;
}

/**
 * An eventfd: a counter in the kernel. It is non-blocking, and closed on `exec`.
 *
 * Another owner, such as a back end that received it, can clear `O_NONBLOCK`. Reads do not depend on the flag. A signal
 * checks first that the count is not at its maximum; it blocks this thread only if the other owner fills the count
 * between the check and the write.
 */
export class EventFd {
  readonly #handle: NativeEventFd;
  /** Its ID in the watcher, while a listener is set. */
  #id: number | undefined;
  /** Rejects the pending `wait()` when the event is closed. */
  #rejectWaiter: (() => void) | undefined;
  #closed = false;
  /** Number of holders that keep the descriptor open. */
  #holders = 0;

  static {
    holdEvent = (event) => {
      const handle = nativeEventFdOf(event);
      event.#holders++;
      const signal = (): void => {
        try {
          native(() => handle.signal(1n));
        } catch (error) {
          if (!(error instanceof PeerDmaError && error.code === 'ERR_OUT_OF_RANGE')) throw error;
        }
      };
      const release = (): void => {
        event.#holders--;
        event.#closeUnheld();
      };
      return { fd: handle.fd, signal, release };
    };
    nativeEventFdOf = (event) => {
      if (typeof event !== 'object' || event === null || !(#handle in event)) {
        throw new PeerDmaError('ERR_INVALID_ARGUMENT', `an EventFd is expected, not ${valueText(event)}`);
      }
      return event.#open();
    };
  }

  private constructor(key: typeof PACKAGE_KEY, handle: NativeEventFd) {
    requirePackageKey(key, 'EventFd.create()');
    this.#handle = handle;
  }

  /**
   * Creates an eventfd with a count of 0.
   *
   * @throws {PeerDmaError} `ERR_SYSTEM` if the process has too many open files
   */
  static create(): EventFd {
    return new EventFd(
      PACKAGE_KEY,
      native(() => NativeEventFd.create()),
    );
  }

  /**
   * Duplicates the descriptor of an eventfd, for example one that another process sent. The caller still owns the given
   * one. Makes the eventfd non-blocking for all of its owners.
   *
   * @param fd a descriptor of this process, 0 to 2^31 - 1
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if it is not the descriptor of an eventfd (without `/proc`: not that
   * of an anonymous file); `ERR_SYSTEM`
   */
  static fromFd(fd: number): EventFd {
    requireIndex(fd, 'fd');
    return new EventFd(
      PACKAGE_KEY,
      native(() => NativeEventFd.fromFd(fd)),
    );
  }

  /** The file descriptor, e.g. for an irqfd, `SCM_RIGHTS` or `/proc/self/fd`. This object owns it. */
  get fd(): number {
    return native(() => this.#open().fd);
  }

  /**
   * Adds to the count.
   *
   * @param count 0 to 2^64 - 2
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` if the sum would exceed 2^64 - 2: the count is unchanged;
   * `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  signal(count = 1n): void {
    requireBigint(count, 'count');
    if (count < 0n || count > MAX) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"count" is 0n to 2^64 - 2, not ${valueText(count)}`);
    }
    native(() => this.#open().signal(count));
  }

  /** Reads the count and resets it to 0. Listeners do not receive this count. */
  take(): bigint {
    const handle = this.#open();
    return native(() => handle.take()) + removeUndelivered(this.#id);
  }

  /**
   * Sets the callback for signals. It is called on the event loop with the count since the last read.
   *
   * An existing count is delivered at once. No signal is lost while this thread is busy: the count accumulates. An
   * error that the callback throws becomes an uncaught exception and does not affect other callbacks. Listening keeps
   * neither the process nor a worker alive.
   *
   * @param callback replaces the previous one; `undefined` removes it, and counts that were not delivered remain for
   * {@link EventFd.take} or the next callback
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`, `ERR_SYSTEM`
   */
  onSignal(callback: ((count: bigint) => void) | undefined): void {
    if (callback !== undefined && typeof callback !== 'function') {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `the callback of an event must be a function, not ${valueText(callback)}`,
      );
    }
    const handle = this.#open();
    if (callback === undefined) {
      this.#stop();
    } else if (this.#id === undefined) {
      this.#id = watchEvent(handle, callback);
    } else {
      replaceListener(this.#id, callback);
    }
  }

  /**
   * Waits for a signal, then reads the count and resets it. Keeps the process alive meanwhile.
   *
   * It resolves at once if the count is not 0.
   *
   * @param options.signal ends the wait. The count is not read then. Default: none
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if a listener or another wait is active; `ERR_CLOSED`, also if the
   * event is closed meanwhile
   * @throws the reason of the signal
   */
  async wait(options: AbortOptions = {}): Promise<bigint> {
    const signal = readSignal(options);
    throwIfAborted(signal);
    if (this.#id !== undefined) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'the event has a listener or a waiter already. Remove it first.');
    }
    const count = this.take();
    if (count > 0n) return count;
    const endKeepAlive = keepAlive();
    let id: number | undefined;
    let onAbort = (): void => {};
    let onCount: ((count: bigint) => void) | undefined;
    let onClose: (() => void) | undefined;
    /** Stops listening, unless another wait or listener has replaced this one. */
    const stop = (): void => {
      if (this.#rejectWaiter === onClose) this.#rejectWaiter = undefined;
      if (id !== undefined && listenerOf(id) === onCount) this.#stop();
    };
    try {
      return await new Promise<bigint>((resolve, reject) => {
        onCount = resolve;
        this.onSignal(resolve);
        id = this.#id;
        onClose = () => reject(new PeerDmaError('ERR_CLOSED', 'the event is closed'));
        this.#rejectWaiter = onClose;
        onAbort = () => {
          try {
            stop(); // at once: a count that arrives now is for the next reader
            reject(signal?.reason);
          } catch (error) {
            reject(error);
          }
        };
        signal?.addEventListener('abort', onAbort);
      });
    } finally {
      endKeepAlive();
      signal?.removeEventListener('abort', onAbort);
      stop();
    }
  }

  /** Stops listening and closes the descriptor. Duplicates (in the kernel, in a hypervisor) stay open. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#stop();
    this.#closed = true;
    this.#rejectWaiter?.();
    this.#closeUnheld();
  }

  /** As {@link EventFd.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'EventFd', () => {
      if (this.#closed) return ['', 'closed'];
      return ['', `fd: ${this.#handle.fd}`, this.#id === undefined ? 'open' : 'open, listening'];
    });
  }

  #closeUnheld(): void {
    if (this.#closed && this.#holders === 0) native(() => this.#handle.close());
  }

  #stop(): void {
    const id = this.#id;
    if (id === undefined) return;
    const undelivered = removeUndelivered(id);
    this.#id = undefined;
    unwatch(id);
    if (undelivered > 0n) native(() => this.#handle.signal(undelivered));
  }

  #open(): NativeEventFd {
    if (this.#closed) throw new PeerDmaError('ERR_CLOSED', 'the event is closed');
    return this.#handle;
  }
}
