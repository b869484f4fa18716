/**
 * The connection to a back end over time: sessions that follow one another, and its state.
 */
import type { AbortSignalLike } from '../abort.ts';
import { PeerDmaError, throwIf } from '../errors.ts';
import type { MutationQueue } from '../guest/mutation-queue.ts';
import type { UnixSocket } from '../unix-socket.ts';
import { asPeerDmaError, disconnected } from './errors.ts';
import { Session } from './session.ts';

/**
 * The state of the connection to a back end.
 *
 * - `connected`: the back end has all memory and processes the queues
 * - `failed`: it did not reply in time or sent an invalid reply. It receives no more requests, but may use memory until
 *   it ends the connection
 * - `disconnected`: it has ended the connection
 * - `closed`: this process has closed the connection
 */
export type VhostUserState = 'connected' | 'failed' | 'disconnected' | 'closed';

/** @internal */
export interface LinkOptions {
  readonly name: string;
  readonly timeout: number;
  /** Milliseconds before a new connection is tried; `undefined`: none is. */
  readonly reconnect: number | undefined;
  /** The calls that use a session, one at a time. */
  readonly turns: MutationQueue;
  /** Connects to the back end. */
  connect(signal?: AbortSignalLike): Promise<UnixSocket>;
  /** Sets a back end up. */
  start(session: Session): Promise<void>;
  /** The session has failed: its queues have stopped at an unknown index. */
  lost(): void;
}

/** @internal */
export class Link {
  readonly #options: LinkOptions;
  #session: Session | undefined;
  #state: VhostUserState = 'disconnected';
  #failure: PeerDmaError | undefined;
  #attempt: NodeJS.Timeout | undefined;
  #isClosed = false;
  /** Receives changes of the state. */
  onStateChange: ((state: VhostUserState) => void) | undefined;

  constructor(options: LinkOptions) {
    this.#options = options;
  }

  get state(): VhostUserState {
    return this.#state;
  }

  /** Why there is no connection. */
  get failure(): PeerDmaError | undefined {
    return this.#failure;
  }

  get connectsAgain(): boolean {
    return this.#options.reconnect !== undefined && !this.#isClosed;
  }

  /** The session, if it takes requests. */
  get session(): Session | undefined {
    return this.#state === 'connected' ? this.#session : undefined;
  }

  /** Whether no back end uses memory. */
  get isReleased(): boolean {
    return this.#session === undefined || this.#session.isGone;
  }

  /** @throws {PeerDmaError} `ERR_CLOSED`, or why there is no connection */
  require(): Session {
    const { session } = this;
    if (session !== undefined) return session;
    throw this.#failure ?? disconnected(this.#options.name);
  }

  /**
   * Connects for the first time.
   *
   * @param signal ends an attempt to connect
   * @throws the error of the connection or of the set-up: the link is closed then
   */
  async open(signal: AbortSignalLike | undefined): Promise<void> {
    try {
      await this.#start(await this.#options.connect(signal));
    } catch (thrown) {
      this.#isClosed = true;
      this.#session?.drop(asPeerDmaError(thrown, this.#options.name));
      throw thrown;
    }
  }

  /** Ends a set-up that runs. */
  drop(error: PeerDmaError): void {
    this.#session?.drop(error);
  }

  /**
   * Ends the connection, and all attempts to make another.
   *
   * @throws {PeerDmaError} `ERR_TIMEOUT` if the back end does not end it: call again when its process has ended
   */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#attempt);
    this.#failure = new PeerDmaError('ERR_CLOSED', `${this.#options.name} is closed`);
    this.#session?.fail(this.#failure);
    try {
      if (!this.isReleased) await this.#session?.gone();
    } catch (error) {
      this.#change('failed');
      throw error;
    }
    this.#change('closed');
  }

  /** Sets a back end up. Its session fails if that does. */
  #start(socket: UnixSocket): Promise<void> {
    const { name, timeout, turns } = this.#options;
    const session = new Session(name, socket, timeout, {
      failed: () => this.#failed(session),
      gone: () => this.#gone(),
    });
    this.#session = session;
    return turns.runAlways(async () => {
      try {
        await this.#options.start(session);
      } catch (thrown) {
        session.fail(asPeerDmaError(thrown, name));
        throw thrown;
      }
      throwIf(session.failure);
      this.#failure = undefined;
      this.#change('connected');
    });
  }

  #failed(session: Session): void {
    this.#failure ??= session.failure;
    this.#options.lost();
    if (!session.isGone && !this.#isClosed) this.#change('failed');
  }

  #gone(): void {
    if (this.#isClosed) return this.#change('closed');
    this.#change('disconnected');
    this.#scheduleAttempt();
  }

  #scheduleAttempt(): void {
    const { reconnect } = this.#options;
    if (reconnect !== undefined) this.#attempt = setTimeout(() => void this.#connectAgain(), reconnect);
  }

  async #connectAgain(): Promise<void> {
    let socket: UnixSocket;
    try {
      socket = await this.#options.connect();
    } catch (thrown) {
      this.#failure = asPeerDmaError(thrown, this.#options.name);
      if (!this.#isClosed) this.#scheduleAttempt();
      return;
    }
    if (this.#isClosed) return socket.close();
    this.#failure = undefined;
    // A session that could not be set up has failed. The next attempt follows when its back end is gone.
    await this.#start(socket).catch(() => {});
  }

  #change(state: VhostUserState): void {
    if (this.#state === state) return;
    this.#state = state;
    try {
      this.onStateChange?.(state);
    } catch (error) {
      queueMicrotask(() => {
        throw error;
      });
    }
  }
}
