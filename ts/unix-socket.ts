/**
 * Unix domain sockets whose messages carry descriptors (`SCM_RIGHTS`).
 */
import { NativeUnixSocket } from '#native';
import { setTimeout as delay } from 'node:timers/promises';
import { type AbortOptions, type AbortSignalLike, readSignal, requireSignal, throwIfAborted } from './abort.ts';
import { copyOf, newBytes, readArray, readOptions, requireBytes, requireCount, requireIndex } from './arguments.ts';
import { PeerDmaError } from './errors.ts';
import { awaitSocket, unwatch } from './event-watcher.ts';
import { keepAlive } from './keep-alive.ts';
import { native } from './native-call.ts';
import { INSPECT, objectText } from './object-text.ts';
import {
  type DescriptorSource,
  type OwnedDescriptor,
  descriptorNumber,
  duplicateDescriptor,
  newDescriptor,
} from './owned-descriptor.ts';
import { PACKAGE_KEY, requirePackageKey } from './package-key.ts';
import { valueText } from './value-text.ts';
import { WaitingCalls } from './waiting-calls.ts';

/** The delay before another attempt to connect while the listener's queue is full, in milliseconds. */
const RETRY_MS = 10;
/** The longest path of a socket in bytes (`unix(7)`, `sun_path`). */
const MAX_PATH = 107;
/** The largest number of descriptors in a message (Linux, `SCM_MAX_FD`). */
const MAX_DESCRIPTORS = 253;

/** @internal */
export let isUnixSocket: (value: unknown) => value is UnixSocket;
/** Words of a message of {@link sendMessages}: its length, and its descriptor. @internal */
export const MESSAGE_WORDS = 2;
/** In place of a descriptor. @internal */
export const NO_DESCRIPTOR = (1n << 64n) - 1n;

/**
 * Sends many messages with up to one descriptor each, as {@link UnixSocket.send} sends one. The descriptors stay open
 * until it has resolved.
 *
 * @param words of each message; this function changes them
 * @internal
 */
export let sendMessages: (socket: UnixSocket, bytes: Uint8Array, words: BigUint64Array) => Promise<void>;
/**
 * Receives as {@link UnixSocket.receive}, with room for few descriptors: the kernel closes the others.
 *
 * The socket stays open if the process cannot have a descriptor (`EMFILE`).
 *
 * @internal
 */
export let receiveWithRoom: (socket: UnixSocket, wanted: WantedMessage) => Promise<LimitedMessage | undefined>;

/** @internal */
export interface WantedMessage {
  /** Bytes. */
  readonly length: number;
  /** The fewest bytes after which it resolves. */
  readonly min: number;
  /** How many descriptors there is room for, at the moment at which bytes are read. */
  room(): number;
}

/** @internal */
export interface LimitedMessage extends ReceivedMessage {
  /** Whether the kernel has closed descriptors, for which there was no room. */
  readonly hadMore: boolean;
}

/** Options of {@link UnixSocket.send}. */
export interface SendOptions {
  /** Up to 253 descriptors, which the receiver gets with the first byte. The caller still owns them. Default: none */
  readonly descriptors?: readonly DescriptorSource[] | undefined;
  /**
   * As in {@link AbortOptions}. An abort after a part of the message was sent closes the socket, because the receiver
   * could not find the next message. Default: none
   */
  readonly signal?: AbortSignalLike | undefined;
}

/** The result of {@link UnixSocket.receive}. */
export interface ReceivedMessage {
  /** As many bytes as were requested. */
  readonly bytes: Uint8Array;
  /** The descriptors that were sent with these bytes, in order. The receiver closes them. */
  readonly descriptors: readonly OwnedDescriptor[];
}

/** Bytes of a receive that was aborted, and their descriptors. They belong to the next receive. */
interface EarlyBytes {
  readonly bytes: Uint8Array;
  readonly descriptors: readonly OwnedDescriptor[];
}

interface ReceivedPart {
  readonly count: number;
  readonly descriptors: readonly OwnedDescriptor[];
  readonly hadMore: boolean;
}

/**
 * A connected Unix domain socket: a stream of bytes and descriptors between two processes.
 *
 * The type is `SOCK_STREAM`. A stream has no boundaries between messages: the receiver requests as many bytes as the
 * sender has sent. Calls of a direction complete in the order of their start.
 */
export class UnixSocket {
  readonly #handle: NativeUnixSocket;
  readonly #sends = new WaitingCalls(() => this.#await());
  readonly #receives = new WaitingCalls(() => this.#await());
  /** Its ID in the watcher, while a call waits. */
  #id: number | undefined;
  #endKeepAlive = (): void => {};
  #early: EarlyBytes | undefined;
  #closed = false;

  static {
    isUnixSocket = (value): value is UnixSocket => typeof value === 'object' && value !== null && #handle in value;
    sendMessages = (socket, bytes, words) => socket.#sendEach(bytes, words);
    receiveWithRoom = (socket, wanted) => socket.#receive(wanted);
  }

  private constructor(key: typeof PACKAGE_KEY, handle: NativeUnixSocket) {
    requirePackageKey(key, 'UnixSocket.connect()');
    this.#handle = handle;
  }

  /**
   * Connects to the socket that a process listens on. Waits while the queue of the listener is full.
   *
   * @param path of the socket, at most 107 bytes
   * @throws {PeerDmaError} `ERR_SYSTEM` with the `errno`: `ENOENT` or `ECONNREFUSED` if no process listens, `EACCES` if
   * this user may not connect; `ERR_INVALID_ARGUMENT`
   * @throws the reason of the signal
   */
  static async connect(path: string, options: AbortOptions = {}): Promise<UnixSocket> {
    const signal = readSignal(options);
    if (typeof path !== 'string' || path === '' || Buffer.byteLength(path) > MAX_PATH) {
      const text = `the path of a socket is a string of 1 to ${MAX_PATH} bytes, not ${valueText(path)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    }
    for (;;) {
      throwIfAborted(signal);
      const handle = native(() => NativeUnixSocket.connect(path));
      if (handle !== null) return new UnixSocket(PACKAGE_KEY, handle);
      await delay(RETRY_MS);
    }
  }

  /**
   * Makes two sockets that are connected to each other. A child process inherits one by its descriptor:
   * `spawn(program, { stdio: ['inherit', 'inherit', 'inherit', socket.fd] })`.
   *
   * @throws {PeerDmaError} `ERR_SYSTEM` if the process has too many open files
   */
  static pair(): [UnixSocket, UnixSocket] {
    const [one, other] = native(() => NativeUnixSocket.pair());
    return [new UnixSocket(PACKAGE_KEY, one), new UnixSocket(PACKAGE_KEY, other)];
  }

  /**
   * Duplicates the descriptor of a connected socket, for example an inherited one. The caller still owns the given one,
   * and the peer sees the end of the stream when both are closed.
   *
   * @param fd a descriptor of this process, 0 to 2^31 - 1
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if it is not a Unix domain socket of type `SOCK_STREAM`
   */
  static fromFd(fd: number): UnixSocket {
    requireIndex(fd, 'fd');
    return new UnixSocket(
      PACKAGE_KEY,
      native(() => NativeUnixSocket.fromFd(fd)),
    );
  }

  /** The descriptor, for example to be inherited by a child process. This object owns it. */
  get fd(): number {
    return native(() => this.#open().fd);
  }

  /**
   * Sends a message. Resolves when the kernel has all of it, which is at once unless the queue of the peer is full.
   *
   * @param bytes at least 1
   * @throws {PeerDmaError} `ERR_PEER_CLOSED` if the peer has closed its end or has ended; `ERR_CLOSED`, also if this
   * socket is closed meanwhile; `ERR_INVALID_ARGUMENT`, also for a descriptor that is not open. `ERR_SYSTEM` with
   * `ETOOMANYREFS`: more descriptors of this user than `RLIMIT_NOFILE` are sent and not received
   * @throws the reason of the signal
   */
  async send(bytes: Uint8Array, options: SendOptions = {}): Promise<void> {
    const { descriptors = [], signal: given } = readOptions(options, ['descriptors', 'signal']);
    const signal = requireSignal(given);
    let rest = requireBytes(bytes);
    let numbers = readArray(descriptors, 'the descriptors').map((each) => descriptorNumber(each, 'descriptors'));
    if (rest.length === 0 || numbers.length > MAX_DESCRIPTORS) {
      const text = `a message has at least 1 byte and at most ${MAX_DESCRIPTORS} descriptors`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${text}, not ${rest.length} and ${numbers.length}`);
    }
    throwIfAborted(signal);
    const handle = this.#open();
    const { length } = rest;
    const attempt = (): boolean => {
      while (rest.length > 0) {
        const sent = native(() => handle.send(rest, numbers));
        if (sent === 0) return false;
        rest = rest.subarray(sent);
        numbers = [];
      }
      return true;
    };
    if (this.#sends.isEmpty && attempt()) return;
    // The caller may change the bytes and close the descriptors meanwhile.
    rest = copyOf(rest, 'a message');
    const owned: OwnedDescriptor[] = [];
    try {
      for (const number of numbers) owned.push(duplicateDescriptor(number));
      numbers = owned.map(({ fd }) => fd);
      await this.#sends.wait(attempt, signal, () => rest.length < length && this.close());
    } finally {
      for (const descriptor of owned) descriptor.close();
    }
  }

  /**
   * Receives exactly `length` bytes, and the descriptors that were sent with them.
   *
   * @param length bytes, at least 1
   * @param options.signal ends the wait. Bytes that have arrived belong to the next receive. Default: none
   * @returns `undefined` if the stream has ended
   * @throws {PeerDmaError} `ERR_PEER_CLOSED` if the stream ends before the last byte; `ERR_CLOSED`, also if this socket
   * is closed meanwhile; `ERR_INVALID_ARGUMENT`. `ERR_SYSTEM` with `EMFILE` if the process cannot have all descriptors:
   * those that arrived are closed, and so is the socket, which has lost bytes
   * @throws the reason of the signal
   */
  async receive(length: number, options: AbortOptions = {}): Promise<ReceivedMessage | undefined> {
    const signal = readSignal(options);
    if (requireCount(length) === 0) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'a message to receive has at least 1 byte');
    }
    throwIfAborted(signal);
    try {
      const message = await this.#receive({ length, min: length, room: () => MAX_DESCRIPTORS }, signal);
      return message && { bytes: message.bytes, descriptors: message.descriptors };
    } catch (error) {
      if (error instanceof PeerDmaError && error.errno === 'EMFILE') this.close();
      throw error;
    }
  }

  /**
   * Ends the stream to the peer, which receives the end after the messages before. The other direction continues. Sends
   * that wait reject with `ERR_PEER_CLOSED`. Idempotent.
   */
  end(): void {
    if (this.#closed) return;
    native(() => this.#handle.end());
    this.#sends.progress(); // the kernel reports nothing to a sender that ends the stream itself
    this.#await();
  }

  /** Closes the descriptor, and rejects waiting calls with `ERR_CLOSED`. Duplicates stay open. Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#sends.rejectAll(closedError());
    this.#receives.rejectAll(closedError());
    for (const descriptor of this.#early?.descriptors ?? []) descriptor.close();
    this.#early = undefined;
    this.#await();
    native(() => this.#handle.close());
  }

  /** As {@link UnixSocket.close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'UnixSocket', () => ['', ...(this.#closed ? ['closed'] : [`fd: ${this.fd}`, 'open'])]);
  }

  #open(): NativeUnixSocket {
    if (this.#closed) throw closedError();
    return this.#handle;
  }

  async #sendEach(bytes: Uint8Array, words: BigUint64Array): Promise<void> {
    const handle = this.#open();
    let rest = bytes;
    let left = words;
    const attempt = (): boolean => {
      while (rest.length > 0) {
        const sent = native(() => handle.sendEach(rest, left));
        if (sent === 0) return false;
        rest = rest.subarray(sent);
        left = wordsAfter(left, BigInt(sent));
      }
      return true;
    };
    if (this.#sends.isEmpty && attempt()) return;
    await this.#sends.wait(attempt, undefined, () => {});
  }

  async #receive(wanted: WantedMessage, signal?: AbortSignalLike): Promise<LimitedMessage | undefined> {
    const { length, min } = wanted;
    this.#open();
    const bytes = newBytes(length, 'a message');
    const descriptors: OwnedDescriptor[] = [];
    let filled = 0;
    let ended = false;
    let hadMore = false;
    const attempt = (): boolean => {
      while (filled < min && !ended) {
        const received = this.#read(bytes.subarray(filled), wanted.room() - descriptors.length);
        if (received === undefined) return false;
        descriptors.push(...received.descriptors);
        hadMore ||= received.hadMore;
        filled += received.count;
        ended = received.count === 0;
      }
      if (ended && filled > 0) throw endedEarly(filled, length);
      return true;
    };
    try {
      if (!this.#receives.isEmpty || !attempt()) {
        await this.#receives.wait(attempt, signal, () => {
          if (filled === 0) return;
          this.#early = { bytes: bytes.slice(0, filled), descriptors: descriptors.splice(0) };
          this.#receives.progress();
        });
      }
    } catch (error) {
      for (const descriptor of descriptors) descriptor.close();
      throw error;
    }
    return ended ? undefined : { bytes: bytes.subarray(0, filled), descriptors, hadMore };
  }

  /** Reads at most as many bytes as `into` has; `undefined` if nothing has arrived. */
  #read(into: Uint8Array, room: number): ReceivedPart | undefined {
    const early = this.#early;
    if (early !== undefined) {
      const count = Math.min(into.length, early.bytes.length);
      into.set(early.bytes.subarray(0, count));
      const rest = early.bytes.subarray(count);
      this.#early = rest.length === 0 ? undefined : { bytes: rest, descriptors: [] };
      return { count, descriptors: early.descriptors, hadMore: false };
    }
    const received = native(() => this.#open().receive(into, Math.max(room, 0)));
    return received === null ? undefined : { ...received, descriptors: received.descriptors.map(newDescriptor) };
  }

  /** Waits for the socket while calls wait, and keeps the process alive meanwhile. */
  #await(): void {
    const readiness = { receive: !this.#receives.isEmpty, send: !this.#sends.isEmpty };
    if (readiness.receive || readiness.send) {
      const isWatched = this.#id !== undefined;
      this.#id = awaitSocket(this.#id, this.#handle, readiness, () => {
        this.#sends.progress();
        this.#receives.progress();
        this.#await();
      });
      if (!isWatched) this.#endKeepAlive = keepAlive();
    } else if (this.#id !== undefined) {
      unwatch(this.#id);
      this.#id = undefined;
      this.#endKeepAlive();
    }
  }
}

/** The words of the messages after the bytes that were sent. A message that was sent in part has no descriptor. */
function wordsAfter(words: BigUint64Array, sent: bigint): BigUint64Array {
  let at = 0;
  let left = sent;
  for (let length = words[at]; length !== undefined && left >= length; length = words[at]) {
    left -= length;
    at += MESSAGE_WORDS;
  }
  const rest = words.subarray(at);
  if (left > 0n) rest.set([(rest[0] ?? 0n) - left, NO_DESCRIPTOR]);
  return rest;
}

function closedError(): PeerDmaError {
  return new PeerDmaError('ERR_CLOSED', 'the socket is closed');
}

function endedEarly(filled: number, length: number): PeerDmaError {
  const reason = `the stream ended after ${filled} of ${length} bytes`;
  return new PeerDmaError('ERR_PEER_CLOSED', `socket: receiving failed: ${reason}. Check the messages of the peer.`);
}
