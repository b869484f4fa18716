/**
 * A vhost-user back end as a DMA target.
 *
 * It is a process that implements a virtio device and maps memory of the guest.
 */
import { type AbortSignalLike, throwIfAborted } from '../abort.ts';
import { type AddressRange, requireRange } from '../address-range.ts';
import { readArray, readOptions, requireBytes, requireCount, requireIndex, requireUnsigned } from '../arguments.ts';
import { Closing } from '../closing.ts';
import type { AcceptedMemory } from '../dma/accepted-memory.ts';
import type { DmaMapRequest, DmaTarget } from '../dma/target.ts';
import { PeerDmaError } from '../errors.ts';
import { fileMemoryOf } from '../memory/memory-file.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { UnixSocket, isUnixSocket } from '../unix-socket.ts';
import { valueText } from '../value-text.ts';
import { BackEnd } from './back-end.ts';
import { readConfigSpace, writeConfigSpace } from './config-space.ts';
import type { VhostUserState } from './link.ts';
import type { MappedRegion } from './memory-table.ts';
import { type VhostUserOptions, readSettings } from './options.ts';
import { Queue, type VhostUserQueue } from './queue.ts';
import { MAX_QUEUES } from './queues.ts';

/**
 * The front end of one vhost-user back end, which follows guest memory as a DMA target.
 *
 * The back end maps the files of RAM that is writable and shareable. It addresses memory as the guest does: the "user
 * addresses" of the protocol are guest-physical addresses, too.
 */
export class VhostUserTarget implements DmaTarget {
  /** The memory that a back end can map. It has no means to map memory read-only. */
  readonly accepts: AcceptedMemory = { kinds: 'ram', backing: 'shareable', readOnly: false };
  readonly #backEnd: BackEnd;
  readonly #closing = new Closing();

  private constructor(key: typeof PACKAGE_KEY, backEnd: BackEnd) {
    requirePackageKey(key, 'VhostUserTarget.connect()');
    this.#backEnd = backEnd;
  }

  /**
   * Connects to a back end and negotiates features. Memory follows with `memory.dmaMappers.addDmaMapper`.
   *
   * @param to the path of the socket on which the back end listens, or a socket that is connected to it: the target
   * owns that one then
   * @throws {PeerDmaError} `ERR_SYSTEM` with the `errno` of the connection; `ERR_UNSUPPORTED` for features that are not
   * offered; `ERR_TIMEOUT`, `ERR_DISCONNECTED`, `ERR_INVALID_REPLY`, `ERR_REQUEST_REFUSED`;
   * `ERR_INVALID_ARGUMENT`, also for `reconnect` without a path
   * @throws the reason of the signal, which has no effect on later connections
   */
  static async connect(to: string | UnixSocket, options: VhostUserOptions = {}): Promise<VhostUserTarget> {
    const settings = readSettings(options, typeof to === 'string' ? to : 'vhost-user');
    const { signal } = settings;
    throwIfAborted(signal);
    const backEnd = new BackEnd(settings, connector(to, settings.reconnect));
    const abort = (): void => backEnd.link.drop(new PeerDmaError('ERR_CLOSED', `${backEnd.name} is closed`));
    signal?.addEventListener('abort', abort);
    try {
      await backEnd.link.open(signal);
    } catch (error) {
      throwIfAborted(signal);
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
    return new VhostUserTarget(PACKAGE_KEY, backEnd);
  }

  /** Name in errors and in `GuestMemory.inspect()`. */
  get name(): string {
    return this.#backEnd.name;
  }

  /** The state of the connection. */
  get state(): VhostUserState {
    return this.#backEnd.link.state;
  }

  /** Why there is no connection, or why the last attempt to connect again failed. */
  get failure(): PeerDmaError | undefined {
    return this.#backEnd.link.failure;
  }

  /** Sets the callback for changes of the state. @param callback `undefined` to remove it */
  onStateChange(callback: ((state: VhostUserState) => void) | undefined): void {
    if (callback !== undefined && typeof callback !== 'function') {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"callback" is a function, not ${valueText(callback)}`);
    }
    this.#backEnd.link.onStateChange = callback;
  }

  /** The features of the device that a driver can accept, as bits. */
  get deviceFeatures(): bigint {
    return this.#backEnd.agreement.deviceFeatures;
  }

  /** The features that the driver has accepted, as bits. */
  get features(): bigint {
    return this.#backEnd.features;
  }

  /** The number of queues, if the back end reports it. DPDK's network devices report the number of pairs. */
  get queueCount(): number | undefined {
    return this.#backEnd.agreement.queueCount;
  }

  /** The most sub-mappings of guest memory that the back end maps. */
  get memorySlots(): number {
    return this.#backEnd.agreement.memorySlots;
  }

  /**
   * Accepts features of the device, as the driver has negotiated them. The next back end gets the same.
   *
   * @param features as bits
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` for features that are not offered; `ERR_INVALID_ARGUMENT`, also while
   * there are queues; `ERR_REQUEST_REFUSED`, `ERR_TIMEOUT`, `ERR_DISCONNECTED`, `ERR_INVALID_REPLY`, `ERR_CLOSED`
   */
  async setFeatures(features: bigint): Promise<void> {
    requireUnsigned(features, 'features');
    await this.#backEnd.run(() => this.#backEnd.setFeatures(features));
  }

  /** Maps one sub-mapping. Guest memory calls it. @throws {PeerDmaError} as {@link VhostUserTarget.mapDmaBatch} */
  async mapDma(request: DmaMapRequest): Promise<void> {
    await this.mapDmaBatch([request]);
  }

  /**
   * Maps all or none. Guest memory calls it.
   *
   * While no back end is connected and another one will be, succeeds at once: that one starts with all memory.
   *
   * @throws {PeerDmaError} `ERR_MAPPING_LIMIT` for more than {@link VhostUserTarget.memorySlots};
   * `ERR_REQUEST_REFUSED`, `ERR_DISCONNECTED`, `ERR_CLOSED`; `ERR_UNMAP_FAILED` if the back end has not confirmed the
   * requests and may have mapped the memory; `ERR_INVALID_ARGUMENT`
   */
  async mapDmaBatch(requests: readonly DmaMapRequest[]): Promise<void> {
    const regions = readArray(requests, 'the requests of a batch').map(readRegion);
    await this.#backEnd.run(() => this.#backEnd.map(regions));
  }

  /**
   * Unmaps one sub-mapping. Guest memory calls it. Resolves when the back end has confirmed it, or has ended the
   * connection.
   *
   * A queue in the memory stops before, and starts again where it stopped when its memory is mapped again.
   *
   * @throws {PeerDmaError} `ERR_TIMEOUT`, `ERR_INVALID_REPLY` or `ERR_REQUEST_REFUSED` if the back end may still use
   * the memory; `ERR_NOT_MAPPED`, `ERR_INVALID_ARGUMENT`
   */
  async unmapDma(range: AddressRange): Promise<void> {
    requireRange(range);
    await this.#backEnd.unmap(range);
  }

  /**
   * Sets up a queue and starts it.
   *
   * While no back end is connected and another one will be, resolves at once: the queue starts with that one.
   *
   * @param index of the queue, 0 to 255
   * @throws {PeerDmaError} `ERR_NOT_MAPPED` if an area of the queue does not lie within one sub-mapping of this target;
   * `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_INVALID_ARGUMENT`; `ERR_UNSUPPORTED` for more than 1,024 descriptors with
   * `reconnect`; `ERR_REQUEST_REFUSED`, `ERR_TIMEOUT`, `ERR_DISCONNECTED`, `ERR_INVALID_REPLY`, `ERR_CLOSED`
   */
  async setQueue(index: number, options: VhostUserQueue): Promise<void> {
    requireQueueIndex(index);
    const queue = new Queue(index, options);
    try {
      await this.#backEnd.run(() => this.#backEnd.setQueue(queue));
    } catch (error) {
      queue.release();
      throw error;
    }
  }

  /**
   * Stops a queue and removes it.
   *
   * @param index of the queue
   * @returns the index of the available ring up to which buffers were processed, for `base` of
   * {@link VhostUserTarget.setQueue}. If the back end is lost, it is the index of the used ring
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if it is not set; `ERR_TIMEOUT`, `ERR_DISCONNECTED`,
   * `ERR_INVALID_REPLY`, `ERR_CLOSED`
   */
  async stopQueue(index: number): Promise<number> {
    requireQueueIndex(index);
    return this.#backEnd.run(() => this.#backEnd.stopQueue(index));
  }

  /**
   * Reads the config space of the device.
   *
   * @param offset in bytes
   * @param length in bytes; `offset + length` is at most 256
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` without the protocol feature `CONFIG`; `ERR_REQUEST_REFUSED`,
   * `ERR_OUT_OF_RANGE`, `ERR_TIMEOUT`, `ERR_DISCONNECTED`, `ERR_INVALID_REPLY`, `ERR_CLOSED`
   */
  async readConfig(offset: number, length: number): Promise<Uint8Array> {
    requireCount(offset, 'offset');
    requireCount(length);
    return this.#backEnd.run(() => readConfigSpace(this.#backEnd, offset, length));
  }

  /**
   * Writes the config space of the device, as its driver.
   *
   * @param offset in bytes
   * @throws {PeerDmaError} as {@link VhostUserTarget.readConfig}
   */
  async writeConfig(offset: number, bytes: Uint8Array): Promise<void> {
    requireCount(offset, 'offset');
    const copy = requireBytes(bytes).slice();
    await this.#backEnd.run(() => writeConfigSpace(this.#backEnd, offset, copy));
  }

  /**
   * Stops and removes all queues, for a driver that resets the device.
   *
   * Resets the device, too, if the back end has the protocol feature `RESET_DEVICE`.
   *
   * @throws {PeerDmaError} `ERR_REQUEST_REFUSED`, `ERR_TIMEOUT`, `ERR_DISCONNECTED`, `ERR_INVALID_REPLY`, `ERR_CLOSED`
   */
  async reset(): Promise<void> {
    await this.#backEnd.run(() => this.#backEnd.reset());
  }

  /**
   * Stops the queues and ends the connection. Resolves when the back end has ended it, too. Idempotent.
   *
   * Remove the target from guest memory first. Memory that it has then stays recorded, and counts as unmapped.
   *
   * @throws {PeerDmaError} `ERR_TIMEOUT` if the back end does not end the connection: it may use memory. End its
   * process, and call this again
   */
  async close(): Promise<void> {
    await this.#closing.once(() => this.#backEnd.close());
  }

  /** As {@link VhostUserTarget.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'VhostUserTarget', () => [`"${this.name}"`, this.state]);
  }
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE` */
function requireQueueIndex(index: number): void {
  if (requireIndex(index, 'index') < MAX_QUEUES) return;
  throw new PeerDmaError('ERR_OUT_OF_RANGE', `the index of a queue is 0 to ${MAX_QUEUES - 1}, not ${index}`);
}

/** Returns the function that makes connections. @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` */
function connector(
  to: string | UnixSocket,
  reconnect: number | undefined,
): (signal?: AbortSignalLike) => Promise<UnixSocket> {
  if (typeof to === 'string') return (signal) => UnixSocket.connect(to, { signal });
  if (!isUnixSocket(to)) {
    const message = `a back end is the path of a socket or a UnixSocket, not ${valueText(to)}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', message);
  }
  if (reconnect === undefined) return async () => to;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', '"reconnect" requires the path of a socket');
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` */
function readRegion(request: DmaMapRequest): MappedRegion {
  const { range, backing } = readOptions(request, ['range', 'backing', 'writable'], 'a request');
  requireRange(range);
  if (backing === 'private') throw new PeerDmaError('ERR_FILE_REQUIRED', `the memory at ${range} is private`);
  const { file, offset } = readOptions(backing, ['file', 'offset'], 'a backing');
  fileMemoryOf(file); // rejects other objects
  requireUnsigned(offset, 'offset');
  return { start: range.start, length: range.length, offset, range, file };
}
