/**
 * One back end: its connection, the memory that it maps, and its queues.
 */
import type { AbortSignalLike } from '../abort.ts';
import type { AddressRange } from '../address-range.ts';
import { PeerDmaError, throwIf } from '../errors.ts';
import { MutationQueue } from '../guest/mutation-queue.ts';
import type { UnixSocket } from '../unix-socket.ts';
import { asPeerDmaError, mapUnknown, refused } from './errors.ts';
import { Link } from './link.ts';
import { type MappedRegion, MemoryTable, addRegions, removeRegion, setRegions } from './memory-table.ts';
import { type Agreement, acceptFeatures, negotiate } from './negotiation.ts';
import type { Settings } from './options.ts';
import type { Queue } from './queue.ts';
import { Queues } from './queues.ts';
import { FEATURE, PROTOCOL } from './requests.ts';
import type { Session } from './session.ts';

/** @internal */
export class BackEnd {
  readonly name: string;
  readonly link: Link;
  readonly #settings: Settings;
  readonly #turns: MutationQueue;
  readonly #memory: MemoryTable;
  readonly #queues: Queues;
  #agreement: Agreement | undefined;
  /** The features that the driver has accepted. */
  #features: bigint | undefined;

  /** @param connect makes a connection to it; the signal aborts that */
  constructor(settings: Settings, connect: (signal?: AbortSignalLike) => Promise<UnixSocket>) {
    const { name, timeout, reconnect } = settings;
    this.name = name;
    this.#settings = settings;
    this.#features = settings.features;
    this.#turns = new MutationQueue(name);
    this.#memory = new MemoryTable(name);
    this.#queues = new Queues(name, this.#memory);
    this.link = new Link({
      name,
      timeout,
      reconnect,
      turns: this.#turns,
      connect,
      start: (session) => this.#start(session),
      lost: () => this.#queues.interrupt(),
    });
  }

  /** The agreement with the back end that is connected, or was last. */
  get agreement(): Agreement {
    return this.#agreement as Agreement; // since the first connection
  }

  get features(): bigint {
    return this.#features ?? 0n;
  }

  /** Runs a call after those before it. @throws {PeerDmaError} `ERR_CLOSED` */
  run<T>(call: () => Promise<T>): Promise<T> {
    return this.#turns.run(call);
  }

  /**
   * Maps all regions or none.
   *
   * @throws {PeerDmaError} `ERR_MAPPING_LIMIT`, `ERR_REQUEST_REFUSED`; `ERR_UNMAP_FAILED` if the back end may have
   * mapped them; why there is no connection, if none will follow
   */
  async map(regions: readonly MappedRegion[]): Promise<void> {
    if (!this.link.connectsAgain) this.link.require();
    this.#memory.add(regions, this.agreement.memorySlots);
    const { session } = this.link;
    // The next session starts with all memory.
    if (session === undefined) return;
    try {
      await (this.#hasSlots ? this.#addRegions(session, regions) : this.#sendTable(session));
    } catch (thrown) {
      if (session.failure !== undefined && this.link.connectsAgain) return;
      if (session.failure !== undefined && !session.isGone) throw mapUnknown(this.name, session.failure);
      if (isUnmapFailed(thrown)) throw thrown;
      this.#memory.remove(regions);
      if (session.failure === undefined && !this.#hasSlots) await this.#restoreTable(session);
      throw thrown;
    }
    await this.#resumeQueues(session);
  }

  /** {@link BackEnd.unmapNow}, after the calls before it, also of a closed back end. */
  unmap(range: AddressRange): Promise<void> {
    return this.#turns.runAlways(() => this.#unmap(range));
  }

  /**
   * Unmaps a region. Queues in it stop before that, and start again when their memory is mapped again.
   *
   * @throws {PeerDmaError} `ERR_NOT_MAPPED`, `ERR_REQUEST_REFUSED`; why the session has failed, if the back end may
   * still use the memory
   */
  async #unmap(range: AddressRange): Promise<void> {
    const region = this.#memory.at(range);
    const { session } = this.link;
    if (session === undefined) {
      if (!this.link.isReleased) throwIf(this.link.failure);
      this.#memory.remove([region]);
      return;
    }
    this.#memory.remove([region]);
    try {
      if (this.#hasSlots) {
        await this.#queues.stop(session, range);
        await session.demand([removeRegion(region)]);
      } else {
        await this.#sendTable(session);
      }
    } catch (error) {
      if (session.isGone) return;
      this.#memory.add([region], this.agreement.memorySlots);
      await this.#resumeQueues(session);
      throw error;
    }
    await this.#resumeQueues(session);
  }

  /**
   * Adds a queue and starts it.
   *
   * @throws {PeerDmaError} as {@link Queues.add}; `ERR_REQUEST_REFUSED`; why there is no connection, if none will
   * follow
   */
  async setQueue(queue: Queue): Promise<void> {
    if (!this.link.connectsAgain) this.link.require();
    this.#queues.add(queue, this.agreement);
    const { session } = this.link;
    if (session === undefined) return;
    try {
      await this.#queues.start(session, this.agreement);
    } catch (error) {
      if (session.failure !== undefined && this.link.connectsAgain) return;
      await this.#queues.stop(session, queue.areas[0]).catch(() => {}); // the first error counts
      this.#queues.remove([queue]);
      throw error;
    }
  }

  /**
   * Stops a queue and removes it.
   *
   * @returns the index of the available ring at which it stopped
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` without such a queue; why the session has failed
   */
  async stopQueue(index: number): Promise<number> {
    const queue = this.#queues.at(index);
    const { session } = this.link;
    if (session !== undefined) await this.#queues.stopOne(session, queue);
    else if (!this.link.isReleased) throwIf(this.link.failure);
    const base = this.#queues.baseOf(queue);
    this.#queues.remove([queue]);
    return base;
  }

  /**
   * Accepts features of the device.
   *
   * @throws {PeerDmaError} `ERR_UNSUPPORTED`; `ERR_INVALID_ARGUMENT` while there are queues
   */
  async setFeatures(features: bigint): Promise<void> {
    if (!this.#queues.isEmpty) {
      const message = `${this.name}: accepting features failed: it has queues. Stop them first`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', message, { target: this.name });
    }
    await acceptFeatures(this.name, this.link.require(), this.agreement, features);
    this.#features = features;
  }

  /** Stops and removes all queues, and resets the device if the back end can. If it refuses, the queues continue. */
  async reset(): Promise<void> {
    const session = this.link.require();
    await this.#queues.stop(session);
    if ((this.agreement.protocol & PROTOCOL.RESET_DEVICE) !== 0n) {
      try {
        await session.demand([{ request: 'RESET_DEVICE' }]);
      } catch (error) {
        if (session.failure === undefined) await this.#resumeQueues(session);
        throw error;
      }
    }
    this.#queues.remove(this.#queues.all());
    // A reset discards the features.
    await acceptFeatures(this.name, session, this.agreement, this.features);
  }

  /** @throws {PeerDmaError} `ERR_TIMEOUT` if the back end does not end the connection: call it again */
  close(): Promise<void> {
    return this.#turns.close(async () => {
      const { session } = this.link;
      if (session !== undefined) await this.#queues.stop(session).catch(() => {}); // the end of the session stops them
      await this.link.close();
      this.#queues.remove(this.#queues.all());
    });
  }

  /** Whether memory is added and removed region by region. */
  get #hasSlots(): boolean {
    return (this.agreement.protocol & PROTOCOL.CONFIGURE_MEM_SLOTS) !== 0n;
  }

  /** Sets a back end up: features, memory, queues. */
  async #start(session: Session): Promise<void> {
    const agreement = await negotiate(session, this.#settings.protocol);
    this.#features ??= agreement.deviceFeatures & FEATURE.VERSION_1;
    await acceptFeatures(this.name, session, agreement, this.#features);
    this.#agreement = agreement;
    const regions = this.#memory.all();
    this.#memory.requireLimit(agreement.memorySlots);
    if (regions.length > 0) await session.demand(this.#hasSlots ? addRegions(regions) : [setRegions(regions)]);
    await this.#queues.start(session, agreement);
  }

  async #addRegions(session: Session, regions: readonly MappedRegion[]): Promise<void> {
    const refusals = new Set(await session.tell(addRegions(regions)));
    if (refusals.size === 0) return;
    const [notAdded, added] = partition(regions, (_, index) => refusals.has(index));
    try {
      await session.demand(added.reverse().map(removeRegion));
    } catch (cause) {
      if (!session.isGone) throw mapUnknown(this.name, cause);
    }
    throw refused(this.name, 'ADD_MEM_REG', notAdded[0]?.range);
  }

  /** Replaces the memory of the back end. Its queues stop before that: no request may use the memory before. */
  async #sendTable(session: Session): Promise<void> {
    await this.#queues.stop(session);
    await session.demand([setRegions(this.#memory.all())]);
  }

  /** Sends the memory before a change that was refused, and starts the queues again. */
  async #restoreTable(session: Session): Promise<void> {
    try {
      // A back end that has refused its first table has none.
      const regions = this.#memory.all();
      if (regions.length > 0) await session.demand([setRegions(regions)]);
    } catch (thrown) {
      session.fail(asPeerDmaError(thrown, this.name));
      return;
    }
    await this.#resumeQueues(session);
  }

  /** Starts the queues that wait for memory. A back end that refuses to go on with a queue has failed. */
  async #resumeQueues(session: Session): Promise<void> {
    try {
      await this.#queues.start(session, this.agreement);
    } catch (thrown) {
      session.fail(asPeerDmaError(thrown, this.name));
    }
  }
}

function partition<T>(list: readonly T[], isFirst: (item: T, index: number) => boolean): [T[], T[]] {
  const first: T[] = [];
  const second: T[] = [];
  for (const [index, item] of list.entries()) (isFirst(item, index) ? first : second).push(item);
  return [first, second];
}

function isUnmapFailed(thrown: unknown): boolean {
  return thrown instanceof PeerDmaError && thrown.code === 'ERR_UNMAP_FAILED';
}
