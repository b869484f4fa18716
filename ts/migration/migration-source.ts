/** The side of a migration that is left: copies a VM while it runs, stops it, and copies the rest. */
import type { AddressRange } from '../address-range.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError, asError, throwAll } from '../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { MutationQueue } from '../guest/mutation-queue.ts';
import { transaction } from '../guest/transaction.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { DeviceSet } from './device-set.ts';
import { startLogs } from './dirty-logs.ts';
import type { DirtyRam } from './dirty-ram.ts';
import { requireVisibleRam } from './hidden-ram.ts';
import type { MigrationChunk } from './migration-chunk.ts';
import { type MigratingMachine, type MigrationOptions, readMigrationOptions } from './migration-options.ts';

/** Most bytes of RAM in a chunk. */
const CHUNK = 1n << 20n;

/** The data that is left to copy, in bytes. */
export interface RemainingData {
  /** RAM. */
  readonly ram: bigint;
  /** Data of devices that can be read while they run. */
  readonly devices: bigint;
}

/**
 * Starts to migrate a VM. It runs on; its devices begin to transfer data, and writes to RAM are logged.
 *
 * All devices run as before if it throws.
 *
 * @throws {PeerDmaError} `ERR_UNSUPPORTED` for a device that cannot migrate or whose writes nothing logs, for several
 * devices without `running-p2p` that can reach each other, and for RAM that another region hides
 * @throws {PeerDmaError} `ERR_MIGRATION_STATE` for a device that does not run, or cannot begin; `ERR_INVALID_ARGUMENT`
 * if an open device of `iommu` is left out; `ERR_SYSTEM`
 */
export async function startMigration(options: MigrationOptions): Promise<MigrationSource> {
  const read = readMigrationOptions(options);
  const devices = new DeviceSet(read.memory, read.devices);
  requireVisibleRam(guestAddressSpaceOf(read.memory));
  return transaction(async (undo) => {
    const ram = await startLogs(read, devices, undo);
    undo.push(() => devices.resume());
    await devices.startPreCopy();
    return new MigrationSource({ memory: read.memory, machine: read.machine, devices, ram });
  });
}

/**
 * The phase of a {@link MigrationSource}.
 *
 * `pre-copy` while the VM runs, `stopping` during `stop`, `stopped` after it, `completed` when `complete` has begun,
 * and `cancelled` after `close` or after a `stop` that failed.
 */
export type MigrationPhase = 'pre-copy' | 'stopping' | 'stopped' | 'completed' | 'cancelled';

/** A migration under way. Returned by {@link startMigration}. */
export class MigrationSource {
  readonly #memory: GuestMemory;
  readonly #machine: MigratingMachine | undefined;
  readonly #devices: DeviceSet;
  readonly #ram: DirtyRam;
  /** `stop`, `complete` and `close`, one at a time. */
  readonly #queue = new MutationQueue('the migration');
  readonly #completing = new Closing();
  readonly #closing = new Closing();
  #phase: MigrationPhase = 'pre-copy';
  /** Whether a round of the copy has begun and has not ended. */
  #isInRound = false;
  /** Whether this object has paused the machine. */
  #isPaused = false;
  /** Whether the devices and the machine run again after the end of the migration. */
  #hasResumed = false;
  /** Whether the devices transfer the data of their stopped state. */
  #isCopying = false;
  /** Whether all data was read. */
  #isCopied = false;

  /** @internal */
  constructor(parts: {
    memory: GuestMemory;
    machine: MigratingMachine | undefined;
    devices: DeviceSet;
    ram: DirtyRam;
  }) {
    this.#memory = parts.memory;
    this.#machine = parts.machine;
    this.#devices = parts.devices;
    this.#ram = parts.ram;
  }

  /** The present phase. */
  get phase(): MigrationPhase {
    return this.#phase;
  }

  /**
   * Yields one round of a copy of the VM, which runs on.
   *
   * It has the RAM that was not copied or was written since, and the present data of devices. The first round has all
   * RAM. Repeat it until little is left.
   *
   * If the consumer ends the loop early, the rest follows in the next round. Nothing else reads the data until the
   * loop has ended: `stop`, `remaining` and another round are rejected.
   *
   * @throws {PeerDmaError} `ERR_MIGRATION_STATE` in another phase than `pre-copy`, or during a round;
   * `ERR_MIGRATION_DATA`, `ERR_SYSTEM`
   */
  async *preCopy(): AsyncGenerator<MigrationChunk, void, undefined> {
    this.#requireBetweenRounds('pre-copy', 'preCopy');
    this.#isInRound = true;
    try {
      await this.#ram.collect();
      yield* this.#ramChunks('pre-copy', 'preCopy');
      for (const { name, migration } of this.#devices.all) {
        if (!migration.supports.preCopy) continue;
        this.#require('pre-copy', 'preCopy');
        void migration.preCopyData; // mlx5 saves the changes since the last data when it is asked for their amount
        for await (const bytes of migration.save()) yield { kind: 'device', device: name, bytes };
      }
    } finally {
      this.#isInRound = false;
    }
  }

  /**
   * Returns the amount of data that is left to copy. When it is small, stop the VM.
   *
   * @throws {PeerDmaError} as {@link MigrationSource.preCopy}
   */
  async remaining(): Promise<RemainingData> {
    this.#requireBetweenRounds('pre-copy', 'remaining');
    await this.#ram.collect();
    const data = this.#devices.all.map(({ migration }) => (migration.supports.preCopy ? migration.preCopyData : NONE));
    return { ram: this.#ram.bytes, devices: data.reduce((sum, { initial, dirty }) => sum + initial + dirty, 0n) };
  }

  /**
   * Adds a range to the RAM that is to be copied.
   *
   * Use it for writes of this process, such as those of an emulated device. Nothing logs them.
   *
   * @param range guest-physical addresses; whole pages
   * @throws {PeerDmaError} `ERR_UNALIGNED`, `ERR_INVALID_ARGUMENT`
   */
  markDirty(range: AddressRange): void {
    this.#ram.add(range);
  }

  /**
   * Stops the VM: pauses the processors, quiesces all devices, then stops them. No DMA between them is lost.
   *
   * If a device does not stop, all devices and the processors run again, and the migration is cancelled. So it is if
   * {@link startMigration} would throw `ERR_UNSUPPORTED` for guest memory as it is now.
   *
   * @throws {PeerDmaError} `ERR_MIGRATION_STATE` of the device, or in another phase than `pre-copy`, or during a round;
   * the error of the machine. `ERR_ROLLBACK_FAILED` if a device does not run again: reset it, and call `close`
   */
  stop(): Promise<void> {
    return this.#queue.runAlways(async () => {
      this.#requireBetweenRounds('pre-copy', 'stop');
      this.#phase = 'stopping';
      try {
        await transaction(async (undo) => {
          undo.push(() => {
            this.#phase = 'cancelled';
            return this.#resume();
          });
          if (this.#machine?.state === 'running') {
            await this.#machine.pause();
            this.#isPaused = true;
          }
          requireVisibleRam(guestAddressSpaceOf(this.#memory));
          await this.#devices.stop();
          await this.#ram.collect();
        });
        this.#phase = 'stopped';
      } finally {
        await this.#ram.stop(); // `close` tries again to stop a log that failed, and reports it
      }
    });
  }

  /**
   * Yields the rest: RAM that was written since the last round, and the data of all devices.
   *
   * If the consumer ends the loop early, another call yields the rest.
   *
   * @throws {PeerDmaError} `ERR_MIGRATION_STATE` in another phase than `stopped`, or during a round;
   * `ERR_MIGRATION_DATA`
   */
  async *stopCopy(): AsyncGenerator<MigrationChunk, void, undefined> {
    this.#requireBetweenRounds('stopped', 'stopCopy');
    this.#isInRound = true;
    try {
      yield* this.#ramChunks('stopped', 'stopCopy');
      await this.#queue.runAlways(async () => {
        this.#require('stopped', 'stopCopy');
        if (!this.#isCopying) await this.#devices.changeStopped('stop-copy');
        this.#isCopying = true;
      });
      for (const { name, migration } of this.#devices.all) {
        this.#require('stopped', 'stopCopy');
        for await (const bytes of migration.save()) yield { kind: 'device', device: name, bytes };
      }
      this.#isCopied = true;
    } finally {
      this.#isInRound = false;
    }
  }

  /**
   * Completes the migration, when the destination has confirmed that the VM runs there. Devices stay stopped.
   *
   * The VM never runs here again, also if a device refuses its last change of state.
   *
   * @throws {PeerDmaError} `ERR_MIGRATION_STATE` in another phase than `stopped`, if `stopCopy` was not read to its
   * end, or from a device: reset it, or call it again
   */
  complete(): Promise<void> {
    return this.#completing.once(() =>
      this.#queue.runAlways(async () => {
        if (this.#phase !== 'completed') this.#require('stopped', 'complete');
        if (!this.#isCopied) {
          const text = 'the migration: complete failed: its data was not read. Read stopCopy() to its end.';
          throw new PeerDmaError('ERR_MIGRATION_STATE', text);
        }
        this.#phase = 'completed'; // from now on the VM may run at the destination
        await this.#devices.changeStopped('stop');
      }),
    );
  }

  /**
   * Cancels a migration that is not complete: lets all devices run, then the processors. Idempotent.
   *
   * It waits for a `stop` or `complete` that is under way.
   *
   * @throws {PeerDmaError} the error of a device that does not run: reset it, and call it again
   */
  close(): Promise<void> {
    return this.#closing.once(() =>
      this.#queue.runAlways(async () => {
        const errors = await this.#ram.stop();
        if (this.#phase !== 'completed') {
          this.#phase = 'cancelled';
          errors.push(...(await this.#resume()));
        }
        throwAll(errors);
      }),
    );
  }

  /** As {@link MigrationSource.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    const names = this.#devices.all.map(({ name }) => name).join(' ');
    return objectText(depth, 'MigrationSource', () => ['', `devices: ${names}`, this.#phase]);
  }

  *#ramChunks(phase: MigrationPhase, method: string): Generator<MigrationChunk> {
    for (const { start, length } of this.#ram.take(CHUNK)) {
      this.#require(phase, method);
      yield { kind: 'ram', gpa: start, bytes: this.#memory.read(start, Number(length)) };
    }
  }

  /** Lets the devices run, then the machine. @returns the errors of what does not run */
  async #resume(): Promise<Error[]> {
    if (this.#hasResumed) return [];
    const errors = await this.#devices.resume();
    try {
      if (this.#isPaused) this.#machine?.resume();
      this.#isPaused = false;
    } catch (error) {
      errors.push(asError(error));
    }
    this.#hasResumed = errors.length === 0;
    return errors;
  }

  #requireBetweenRounds(phase: MigrationPhase, method: string): void {
    this.#require(phase, method);
    if (!this.#isInRound) return;
    const text = `the migration: ${method} failed: a round of its copy has not ended. End its loop first.`;
    throw new PeerDmaError('ERR_MIGRATION_STATE', text);
  }

  #require(phase: MigrationPhase, method: string): void {
    if (this.#phase === phase) return;
    const text = `the migration: ${method} failed: it is ${this.#phase}, not ${phase}. Start another one.`;
    throw new PeerDmaError('ERR_MIGRATION_STATE', text);
  }
}

const NONE = { initial: 0n, dirty: 0n };
