/** The interface of a device that can migrate: its states, its data, and its log of DMA writes. */
import type { AddressRange } from '../../address-range.ts';

/**
 * A migration state of a device (Linux, `enum vfio_device_mig_state`).
 *
 * - `running`: it runs
 * - `running-p2p`: it runs, accepts DMA of other devices, and does none to them
 * - `stop`: it does nothing and accepts no DMA
 * - `pre-copy`, `pre-copy-p2p`: as `running` and `running-p2p`, and its data can be read
 * - `stop-copy`: as `stop`, and its data can be read
 * - `resuming`: as `stop`, and it takes data
 * - `error`: it has failed, and only a reset ends that
 */
export type MigrationState =
  'running' | 'running-p2p' | 'stop' | 'pre-copy' | 'pre-copy-p2p' | 'stop-copy' | 'resuming' | 'error';

/** The migration features of a device. */
export interface MigrationSupport {
  /** Whether it has the states `stop`, `stop-copy` and `resuming`. Every device that can migrate has them. */
  readonly stopCopy: true;
  /** Whether it has the state `pre-copy`: it transfers data while it runs. */
  readonly preCopy: boolean;
  /** Whether it has the state `running-p2p`, and `pre-copy-p2p` if it has `pre-copy`. */
  readonly p2p: boolean;
}

/** Options of {@link DeviceMigration.save}. */
export interface SaveOptions {
  /** At least one byte. */
  readonly buffer?: Uint8Array;
}

/** Data that can be read from a device that runs. */
export interface PreCopyData {
  /** Bytes of initial data. It is best to stop the device when none are left. */
  readonly initial: bigint;
  /** Bytes of changes to data that was read. */
  readonly dirty: bigint;
}

/** A device's own log of the pages that it writes by DMA. */
export interface DeviceDmaLog {
  /**
   * Starts to log.
   *
   * @param ranges the guest-physical addresses to log, sorted; whole pages. A device may log more
   * @param pageSize bytes in a page; a device may log larger pages
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` for more ranges than it can log; `ERR_SYSTEM`, `ERR_CLOSED`
   */
  start(ranges: readonly AddressRange[], pageSize: bigint): Promise<void>;
  /** Stops logging. @throws {PeerDmaError} `ERR_SYSTEM`, `ERR_CLOSED` */
  stop(): Promise<void>;
  /**
   * Returns a bit for each page of a range, set if the device may have written it since the last call. Bit 0 of word 0
   * is the first page.
   *
   * @param range guest-physical addresses; whole pages
   * @param pageSize bytes in a page, as for `start`
   * @throws {PeerDmaError} `ERR_SYSTEM` if the log is lost: all pages count as written then; `ERR_CLOSED`
   */
  read(range: AddressRange, pageSize: bigint): Promise<BigUint64Array>;
}

/**
 * The migration of one device. Use {@link startMigration} and {@link startRestore} for all devices of a VM: their
 * order matters.
 */
export interface DeviceMigration {
  /** Its features. */
  readonly supports: MigrationSupport;
  /** The present state. @throws {PeerDmaError} `ERR_SYSTEM`, `ERR_CLOSED` */
  readonly state: MigrationState;
  /** Its own log of DMA writes, if it has one. */
  readonly dmaLog?: DeviceDmaLog | undefined;
  /**
   * Changes the state by the shortest path. Resolves when the device is in that state.
   *
   * Only its own state is considered: a device that stops while another one writes to it loses those bytes.
   *
   * @throws {PeerDmaError} `ERR_MIGRATION_STATE` if there is no such transition, the device does not have the state, or
   * the transition failed: the device can be in another state then, also in `error`. `ERR_CLOSED`
   */
  setState(state: MigrationState): Promise<void>;
  /**
   * Returns the bytes of data that `stop-copy` will transfer, as an estimate.
   *
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` if the kernel cannot estimate it (before Linux 6.2); `ERR_CLOSED`
   */
  estimateSize(): bigint;
  /**
   * The data that can be read now.
   *
   * @throws {PeerDmaError} `ERR_MIGRATION_STATE` in states other than `pre-copy` and `pre-copy-p2p`
   */
  readonly preCopyData: PreCopyData;
  /**
   * Yields the data of the device: its present data in `pre-copy`, the rest in `stop-copy`. Keep the order of the
   * bytes; their division into chunks has no meaning.
   *
   * @param options.buffer memory for chunks. A device may yield parts of it, each valid until the next chunk is
   * requested. Default: each chunk is a new array
   * @throws {PeerDmaError} `ERR_MIGRATION_STATE` in states without data; `ERR_MIGRATION_DATA` if reading fails
   */
  save(options?: SaveOptions): AsyncIterable<Uint8Array>;
  /**
   * Writes data to a device in `resuming`. The device checks it when it leaves that state.
   *
   * @throws {PeerDmaError} `ERR_MIGRATION_STATE` in another state; `ERR_MIGRATION_DATA` if the device rejects the data
   */
  load(chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<void>;
}
