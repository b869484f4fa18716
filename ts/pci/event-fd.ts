/**
 * Events that are counted in the kernel: what interrupts, hypervisors (irqfd, ioeventfd) and this process signal to
 * one another.
 */
import { NativeEventFd, NativeEventWatcher } from '#native';
import { PeerDmaError } from '../errors.ts';
import { native } from '../native-call.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { valueText } from '../value-text.ts';

/** An eventfd counts up to this (`eventfd(2)`). */
const MOST = (1n << 64n) - 2n;

/** Milliseconds, as many as a timer takes. */
const LONG = 2 ** 31 - 1;

// Set by the class below: the way to its private parts, for this package only.
/** The native handle behind an event. Throws for what is none, or closed. @internal */
export let nativeEventFdOf: (event: EventFd) => NativeEventFd;
/** Holds an event as the kernel holds one that it signals: its descriptor stays open until then. @internal */
export let holdEvent: (event: EventFd) => HeldEvent;

/** An event that can be signalled after its owner has closed it. @internal */
export interface HeldEvent {
  /** Adds one to the count, unless it is full. */
  signal(): void;
  /** To be called once. */
  release(): void;
}

/** An eventfd: a counter in the kernel. It never blocks, and is closed on `exec`. */
export class EventFd {
  readonly #handle: NativeEventFd;
  /** Under which the watcher has it, while somebody listens. */
  #id: number | undefined;
  /** Tells who waits that it is closed. */
  #abandon: (() => void) | undefined;
  #closed = false;
  /** Keep the descriptor open. */
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
      return { signal, release };
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
   * Makes one that counts nothing yet.
   *
   * @throws {PeerDmaError} `ERR_SYSTEM` where the process has too many files open
   */
  static create(): EventFd {
    return new EventFd(
      PACKAGE_KEY,
      native(() => NativeEventFd.create()),
    );
  }

  /** The descriptor, which stays this object's: for an irqfd, `SCM_RIGHTS`, `/proc/self/fd` and the like. */
  get fd(): number {
    return native(() => this.#open().fd);
  }

  /**
   * Adds to the count.
   *
   * @param count 0 to 2^64 - 2
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` where the sum would exceed 2^64 - 2: the count stays as it is;
   * `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  signal(count = 1n): void {
    if (typeof count !== 'bigint' || count < 0n || count > MOST) {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `an event is signalled 0n to 2^64 - 2 times, not ${valueText(count)}`,
      );
    }
    native(() => this.#open().signal(count));
  }

  /** Takes the count, 0 where nothing was signalled. What it gets, nobody else does: a listener isn't told of it. */
  take(): bigint {
    const handle = this.#open();
    return native(() => handle.take()) + withdraw(this.#id);
  }

  /**
   * Calls back when it is signalled, on the event loop, with how often that was since it was taken last; at once
   * for a count that is there already. Nothing of a count gets lost, however busy this thread is: it adds up. What the callback
   * throws is an uncaught exception, and keeps no other callback from being called. Listening keeps neither the process nor a
   * worker alive.
   *
   * @param callback in place of the one before, if there was one; `undefined`: nobody is called from here on, and what was
   * counted and not delivered stays for {@link EventFd.take} or the next callback
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`, `ERR_SYSTEM`
   */
  listen(callback: ((count: bigint) => void) | undefined): void {
    if (callback !== undefined && typeof callback !== 'function') {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `what is to be called is a function, not ${valueText(callback)}`);
    }
    const handle = this.#open();
    if (callback === undefined) {
      this.#stop();
    } else if (this.#id === undefined) {
      this.#id = watch(handle, callback);
    } else {
      listeners.set(this.#id, callback);
    }
  }

  /**
   * Waits until it is signalled, and takes the count; at once where it was. Unlike listening, waiting keeps the process alive.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` while somebody listens or waits; `ERR_CLOSED`, also where it is closed meanwhile
   */
  async wait(): Promise<bigint> {
    if (this.#id !== undefined) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'somebody listens to the event, and would not hear of it');
    }
    const count = this.take();
    if (count > 0n) return count;
    const alive = setInterval(() => {}, LONG);
    try {
      return await new Promise<bigint>((resolve, reject) => {
        this.listen(resolve);
        this.#abandon = () => reject(new PeerDmaError('ERR_CLOSED', 'the event is closed'));
      });
    } finally {
      clearInterval(alive);
      this.#abandon = undefined;
      if (!this.#closed) this.listen(undefined);
    }
  }

  /** Stops listening and closes the descriptor. Who was given it (the kernel, a hypervisor) keeps it. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#stop();
    this.#closed = true;
    this.#abandon?.();
    this.#closeUnheld();
  }

  /** As {@link EventFd.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #closeUnheld(): void {
    if (this.#closed && this.#holders === 0) native(() => this.#handle.close());
  }

  #stop(): void {
    const id = this.#id;
    if (id === undefined) return;
    const undelivered = withdraw(id);
    this.#id = undefined;
    listeners.delete(id);
    native(() => watcher?.remove(id));
    if (undelivered > 0n) native(() => this.#handle.signal(undelivered));
  }

  #open(): NativeEventFd {
    if (this.#closed) throw new PeerDmaError('ERR_CLOSED', 'the event is closed');
    return this.#handle;
  }
}

/** Waits for all events of this thread that somebody listens to. Made for the first, and there until the thread ends. */
let watcher: NativeEventWatcher | undefined;
/** Whom to call, by the number under which the watcher has the event. A number is used once. */
const listeners = new Map<number, (count: bigint) => void>();
/** What was collected from the watcher and is about to be delivered. Empty but during {@link deliver}. */
const collected = new Map<number, bigint>();
let ids = 0;

function watch(event: NativeEventFd, callback: (count: bigint) => void): number {
  watcher ??= native(() => new NativeEventWatcher(deliver));
  const waiting = watcher;
  const id = ids++;
  native(() => waiting.add(id, event));
  listeners.set(id, callback);
  return id;
}

/** What one event has to deliver and did not yet. It is the caller's then. */
function withdraw(id: number | undefined): bigint {
  if (id === undefined) return 0n;
  const count = collected.get(id) ?? 0n;
  collected.delete(id);
  return count;
}

/** Called by the watcher when something was signalled. */
function deliver(): void {
  const counts = native(() => watcher?.collect()) ?? [];
  for (let at = 0; at + 1 < counts.length; at += 2) collected.set(Number(counts[at]), counts[at + 1] ?? 0n);
  // A callback may stop others, or take what they would have got.
  for (const id of collected.keys()) {
    const count = withdraw(id);
    if (count === 0n) continue;
    try {
      listeners.get(id)?.(count);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}
