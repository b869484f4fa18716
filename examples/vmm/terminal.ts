/**
 * The terminal of the VMM, whose keys go to the guest.
 *
 * Ctrl-A x ends the VMM. Ctrl-A + and Ctrl-A - give the guest more or less RAM. Ctrl-A Ctrl-A sends one Ctrl-A. Any
 * other key after Ctrl-A is dropped.
 */
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';

/** The streams of a terminal, and the receivers of its keys. */
export interface TerminalOptions {
  /** Default: standard input. It need not be a terminal. */
  readonly input?: Readable & { readonly isTTY?: boolean; setRawMode?(isRaw: boolean): unknown };
  /** Default: standard output. */
  readonly output?: Writable;
  /** Sends bytes to the guest. Input that is not a terminal is not read until the promise resolves. */
  receive(bytes: Uint8Array): void | Promise<void>;
  /** Ends the VMM. */
  quit(): void;
  /** Gives the guest more RAM, or less. Default: does nothing */
  resize?(change: 'grow' | 'shrink'): void;
  /** Is called once if the output cannot be written, such as when its reader has ended (`EPIPE`). */
  outputFailed(error: Error): void;
}

const ESCAPE = 0x01; // Ctrl-A
const QUIT = 'x'.charCodeAt(0);
const GROW = '+'.charCodeAt(0);
const SHRINK = '-'.charCodeAt(0);

/** Signals that end a process without its 'exit' event. */
const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGTERM'] as const;

/** A terminal in raw mode. The mode is restored when it is closed, and when the process ends otherwise. */
export class Terminal {
  readonly #input: NonNullable<TerminalOptions['input']>;
  readonly #output: Writable;
  readonly #options: TerminalOptions;
  #isEscaped = false;
  #hasFailed = false;
  #isClosed = false;
  #drained: Promise<void> | undefined;

  constructor(options: TerminalOptions) {
    this.#options = options;
    this.#input = options.input ?? process.stdin;
    this.#output = options.output ?? process.stdout;
    process.on('exit', this.#restore); // also after an error that ends the process
    for (const signal of SIGNALS) process.on(signal, this.#end);
    // These listeners stay. Without one, an error of a stream ends the process, also after the terminal is closed.
    this.#input.on('error', () => {}); // the terminal is gone, so no key follows
    this.#output.on('error', this.#fail);
    if (this.#input.isTTY === true) this.#input.setRawMode?.(true);
    this.#input.on('data', this.#take);
  }

  /**
   * Writes bytes of the guest. Drops them after the output has failed.
   *
   * @returns if the output is full, a promise that resolves when the reader has caught up, or the output has failed
   */
  write(bytes: Uint8Array): void | Promise<void> {
    if (this.#hasFailed) return;
    const output = this.#output;
    if (output.writableCorked === 0) {
      output.cork(); // bytes of one turn of the event loop are one system call
      process.nextTick(() => output.uncork());
    }
    if (output.write(bytes)) return;
    const end = (): void => void (this.#drained = undefined);
    this.#drained ??= once(output, 'drain').then(end, end);
    return this.#drained;
  }

  /** Restores the mode, and stops reading. Idempotent. */
  close(): void {
    this.#isClosed = true;
    process.off('exit', this.#restore);
    for (const signal of SIGNALS) process.off(signal, this.#end);
    this.#input.off('data', this.#take);
    this.#input.pause(); // otherwise it keeps the process alive
    this.#restore();
  }

  /** As {@link Terminal.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  readonly #take = (keys: Uint8Array): void => {
    const sent = keys.filter((key) => this.#isSent(key));
    const received = sent.length > 0 ? this.#options.receive(sent) : undefined;
    // A terminal is always read: Ctrl-A x has to end the VMM of a guest that reads nothing.
    if (received instanceof Promise && this.#input.isTTY !== true) {
      this.#input.pause();
      void received.then(() => this.#resume());
    }
  };

  #resume(): void {
    if (!this.#isClosed) this.#input.resume();
  }

  /** Returns whether a key goes to the guest. */
  #isSent(key: number): boolean {
    const isEscaped = this.#isEscaped;
    this.#isEscaped = !isEscaped && key === ESCAPE;
    if (isEscaped && key === QUIT) this.#options.quit();
    if (isEscaped && (key === GROW || key === SHRINK)) this.#options.resize?.(key === GROW ? 'grow' : 'shrink');
    return isEscaped === (key === ESCAPE);
  }

  /** Standard output reports each write that fails. */
  readonly #fail = (error: Error): void => {
    if (this.#hasFailed) return;
    this.#hasFailed = true;
    this.#options.outputFailed(error);
  };

  readonly #restore = (): void => {
    if (this.#input.isTTY === true) this.#input.setRawMode?.(false);
  };

  /** Ends the process as the signal does without a listener. */
  readonly #end = (signal: NodeJS.Signals): void => {
    this.close();
    if (process.listenerCount(signal) === 0) process.kill(process.pid, signal);
  };
}
