/**
 * One connection to a back end: requests and their replies, one exchange at a time.
 *
 * A session that fails makes no more requests, and ends its direction of the stream. The back end may use memory until
 * it has ended the other direction: then it is gone.
 */
import { setImmediate } from 'node:timers/promises';
import { PeerDmaError, asError } from '../errors.ts';
import { type LimitedMessage, type UnixSocket, receiveWithRoom, sendMessages } from '../unix-socket.ts';
import { disconnected, invalidReply, localFailure, refused, timedOut } from './errors.ts';
import { HEADER, type Message, encodeMessages, messageWords } from './message.ts';
import { decodeU64 } from './payloads.ts';
import { type ExpectedReplies, type Reply, acknowledgements, readReplies } from './replies.ts';
import { startTimer } from './timer.ts';

/**
 * The most requests without a confirmation. The kernel counts their descriptors until they are received, and a user may
 * have as many as open files (`ETOOMANYREFS`).
 */
const MAX_UNCONFIRMED = 128;

/** Bytes that are read at once after a failure. */
const DISCARDED = 65_536;

/** The events of a session. @internal */
export interface SessionEvents {
  /** It makes no more requests. */
  failed(): void;
  /** The back end has ended the connection. */
  gone(): void;
}

interface Exchange {
  readonly expected: ExpectedReplies;
  resolve(replies: Reply[]): void;
  reject(error: PeerDmaError): void;
}

/** @internal */
export class Session {
  /** Whether the back end confirms each request on demand (REPLY_ACK). */
  confirmsEach = false;
  readonly #name: string;
  readonly #socket: UnixSocket;
  readonly #timeout: number;
  readonly #whenGone: Promise<void>;
  #events: SessionEvents;
  #exchange: Exchange | undefined;
  #failure: PeerDmaError | undefined;
  #isGone = false;

  /** @param timeout for the replies of an exchange, in milliseconds */
  constructor(name: string, socket: UnixSocket, timeout: number, events: SessionEvents) {
    this.#name = name;
    this.#socket = socket;
    this.#timeout = timeout;
    this.#events = events;
    this.#whenGone = this.#read();
  }

  /** Why it makes no more requests. */
  get failure(): PeerDmaError | undefined {
    return this.#failure;
  }

  /** Whether the back end has ended the connection. */
  get isGone(): boolean {
    return this.#isGone;
  }

  /**
   * Sends a request that has a reply of its own.
   *
   * @param size bytes of its payload
   * @throws {PeerDmaError} `ERR_DISCONNECTED`, `ERR_TIMEOUT`, `ERR_INVALID_REPLY`; `ERR_CLOSED` after a close
   */
  async ask(message: Message, size: number, options: Partial<ExpectedReplies> = {}): Promise<Reply> {
    const [reply] = await this.#run([message], false, { requests: [message.request], size, ...options });
    return reply as Reply; // one for each request
  }

  /**
   * Sends requests without replies of their own, and waits until the back end has processed them.
   *
   * A back end without REPLY_ACK does not report refusals. It processes requests in order, and so these before a
   * request that has a reply.
   *
   * @returns the indexes of the requests that the back end has refused
   * @throws {PeerDmaError} as {@link Session.ask}
   */
  async tell(messages: readonly Message[]): Promise<number[]> {
    const refusals: number[] = [];
    for (let first = 0; first < messages.length; first += MAX_UNCONFIRMED) {
      const batch = messages.slice(first, first + MAX_UNCONFIRMED);
      if (!this.confirmsEach) {
        await this.#run([...batch, { request: 'GET_FEATURES' }], false, acknowledgements(['GET_FEATURES']));
        continue;
      }
      const replies = await this.#run(batch, true, acknowledgements(batch.map(({ request }) => request)));
      for (const [index, { payload }] of replies.entries()) if (decodeU64(payload) !== 0n) refusals.push(first + index);
    }
    return refusals;
  }

  /** {@link Session.tell}. @throws {PeerDmaError} also `ERR_REQUEST_REFUSED` */
  async demand(messages: readonly Message[]): Promise<void> {
    const [first] = await this.tell(messages);
    if (first !== undefined) throw refused(this.#name, (messages[first] as Message).request);
  }

  /** Makes no more requests. The back end receives the end of the stream. */
  fail(error: PeerDmaError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#socket.end();
    this.#exchange?.reject(error);
    this.#exchange = undefined; // a late reply belongs to no request
    this.#events.failed();
  }

  /** Fails without an event, and does not wait for the back end, which has no memory of this session. */
  drop(error: PeerDmaError): void {
    this.#events = { failed: () => {}, gone: () => {} };
    this.fail(error);
    this.#socket.close();
  }

  /**
   * Waits until the back end has ended the connection.
   *
   * @throws {PeerDmaError} `ERR_TIMEOUT`
   */
  async gone(): Promise<void> {
    let stopTimer = (): void => {};
    const late = new Promise<never>((_, reject) => {
      const error = timedOut(this.#name, 'ending the connection', this.#timeout);
      stopTimer = startTimer(this.#timeout, () => reject(error));
    });
    await Promise.race([this.#whenGone, late]).finally(stopTimer);
  }

  #run(messages: readonly Message[], needsReply: boolean, expected: ExpectedReplies): Promise<Reply[]> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const late = timedOut(this.#name, messages[0]?.request ?? '', this.#timeout);
    const stopTimer = startTimer(this.#timeout, () => this.fail(late));
    return new Promise<Reply[]>((resolve, reject) => {
      this.#exchange = { expected, resolve, reject };
      void this.#send(messages, needsReply);
    }).finally(stopTimer);
  }

  async #send(messages: readonly Message[], needsReply: boolean): Promise<void> {
    try {
      for (const batch of batchesOf(messages)) {
        const bytes = encodeMessages(batch, needsReply);
        const [first] = batch;
        if (batch.length > 1) await sendMessages(this.#socket, bytes, messageWords(batch));
        else await this.#socket.send(bytes, { descriptors: first?.descriptors ?? [] });
      }
    } catch (thrown) {
      const error = asError(thrown);
      // The end of the connection follows the replies that the back end has sent before.
      if (error instanceof PeerDmaError && error.code === 'ERR_PEER_CLOSED') return;
      const message = `${this.#name}: sending failed: ${error.message}`;
      this.fail(new PeerDmaError('ERR_SYSTEM', message, { target: this.#name, cause: thrown }));
    }
  }

  /** Reads until the connection ends. */
  async #read(): Promise<void> {
    for (;;) {
      try {
        if (!(await (this.#failure === undefined ? this.#readExchange() : this.#discard()))) break;
      } catch (thrown) {
        const error = asError(thrown);
        const code = error instanceof PeerDmaError ? error.code : undefined;
        if (code === 'ERR_PEER_CLOSED') break;
        const isLocal = code === 'ERR_SYSTEM' || code === 'ERR_CLOSED';
        this.fail((isLocal ? localFailure : invalidReply)(this.#name, error.message, thrown));
        // The end of the back end cannot be seen any more.
        if (code === 'ERR_CLOSED') return new Promise(() => {});
      }
    }
    this.#isGone = true;
    this.fail(disconnected(this.#name));
    this.#socket.close();
    this.#events.gone();
  }

  /** Reads the replies of one exchange. @returns false at the end of the stream */
  async #readExchange(): Promise<boolean> {
    const first = await this.#receive(HEADER);
    if (first === undefined) return false;
    const exchange = this.#exchange;
    const replies = await readReplies(first, exchange?.expected, (length, held) => this.#receive(length, held));
    if (this.#failure === undefined) {
      this.#exchange = undefined;
      exchange?.resolve(replies);
    } else {
      for (const { descriptor } of replies) descriptor?.close();
    }
    return true;
  }

  /** @param held descriptors that came with the replies of the exchange before */
  #receive(length: number, held = 0): Promise<LimitedMessage | undefined> {
    const room = (): number => (this.#exchange?.expected.hasDescriptor === true ? 1 : 0) - held;
    return receiveWithRoom(this.#socket, { length, min: length, room });
  }

  /** Reads what a back end sends after a failure, in turns of the event loop. @returns false at the end */
  async #discard(): Promise<boolean> {
    await setImmediate();
    const received = await receiveWithRoom(this.#socket, { length: DISCARDED, min: 1, room: () => 0 });
    for (const descriptor of received?.descriptors ?? []) descriptor.close();
    return received !== undefined;
  }
}

/** Splits messages so that those with several descriptors are alone. */
function batchesOf(messages: readonly Message[]): Message[][] {
  const batches: Message[][] = [];
  let isOpen = false;
  for (const message of messages) {
    const isSimple = (message.descriptors?.length ?? 0) <= 1;
    if (isSimple && isOpen) batches.at(-1)?.push(message);
    else batches.push([message]);
    isOpen = isSimple;
  }
  return batches;
}
