/** The side of a migration that continues: takes the copy of a VM, and lets its devices run. */
import { readOptions, requireBytes } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError, asError } from '../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { transaction } from '../guest/transaction.ts';
import { INSPECT, objectText } from '../object-text.ts';
import type { PhysicalFunction } from '../pci/physical-function.ts';
import { valueText } from '../value-text.ts';
import { DeviceSet, throwAny } from './device-set.ts';
import type { DeviceChunk, MigrationChunk, RamChunk } from './migration-chunk.ts';

/** The parts of both kinds of chunks. */
type Parts = Partial<Omit<RamChunk, 'kind'> & Omit<DeviceChunk, 'kind'>> & { readonly kind?: string };
const PARTS = ['kind', 'gpa', 'device', 'bytes'] as const;

/** Options of {@link startRestore}. */
export interface RestoreOptions {
  /** The memory of the VM, with RAM at the same addresses as at the source. */
  readonly memory: GuestMemory;
  /** Its devices, by the names of the source. Their memory is mapped at the addresses of the source. */
  readonly devices: Readonly<Record<string, PhysicalFunction>>;
}

/**
 * Prepares devices to take the data of a migration: stops them, and opens their sessions.
 *
 * @throws {PeerDmaError} as {@link startMigration}. All devices run as before then
 */
export async function startRestore(options: RestoreOptions): Promise<MigrationTarget> {
  const { memory, devices: given } = readOptions(options, ['memory', 'devices']);
  guestAddressSpaceOf(memory); // throws if it is not guest memory
  const devices = new DeviceSet(memory, given);
  return transaction(async (undo) => {
    undo.push(() => devices.resume());
    await devices.stop();
    undo.pop();
    undo.push(() => resetAll(devices));
    await devices.changeStopped('resuming');
    return new MigrationTarget(memory, devices);
  });
}

/** A VM that is being restored. Returned by {@link startRestore}. */
export class MigrationTarget {
  readonly #memory: GuestMemory;
  readonly #devices: DeviceSet;
  readonly #closing = new Closing();
  #isComplete = false;
  #isClosed = false;

  /** @internal */
  constructor(memory: GuestMemory, devices: DeviceSet) {
    this.#memory = memory;
    this.#devices = devices;
  }

  /**
   * Writes a chunk: to RAM, or to a device. Call it once for each chunk, in their order.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for an unknown device; `ERR_MIGRATION_DATA` if the device rejects the
   * data; the errors of {@link GuestMemory.write}; `ERR_MIGRATION_STATE` after its end
   */
  async write(chunk: MigrationChunk): Promise<void> {
    this.#requireOpen('write');
    const { kind, gpa = 0n, device, bytes } = readOptions(chunk as Parts, PARTS, 'a chunk');
    const data = requireBytes(bytes as Uint8Array);
    if (kind === 'ram') return this.#memory.write(gpa, data);
    const found = this.#devices.all.find(({ name }) => name === device);
    if (found === undefined) {
      const text = `the restore: no device has the name ${valueText(device)}. Use the names of the source.`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    }
    await found.migration.load([data]);
  }

  /**
   * Completes the restore: the devices check their data, then all run. Run the processors afterwards.
   *
   * The devices accept DMA of each other before the first one does some.
   *
   * @throws {PeerDmaError} `ERR_MIGRATION_STATE` or `ERR_MIGRATION_DATA` of a device that rejects its data: close this
   * object; the error of a device that does not run: reset it
   */
  async complete(): Promise<void> {
    if (this.#isComplete) return;
    this.#requireOpen('complete');
    await this.#devices.changeStopped('stop');
    this.#isComplete = true;
    throwAny(await this.#devices.resume());
  }

  /**
   * Abandons a restore that is not complete: resets the devices, which run then. Idempotent.
   *
   * @throws {PeerDmaError} the error of a device that could not be reset; call it again then
   */
  close(): Promise<void> {
    return this.#closing.once(async () => {
      this.#isClosed = true;
      if (this.#isComplete) return;
      throwAny(await resetAll(this.#devices));
    });
  }

  /** As {@link MigrationTarget.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    const names = this.#devices.all.map(({ name }) => name).join(' ');
    const state = this.#isComplete ? 'completed' : this.#isClosed ? 'closed' : 'open';
    return objectText(depth, 'MigrationTarget', () => ['', `devices: ${names}`, state]);
  }

  #requireOpen(method: string): void {
    if (!this.#isComplete && !this.#isClosed) return;
    const state = this.#isComplete ? 'completed' : 'closed';
    throw new PeerDmaError('ERR_MIGRATION_STATE', `the restore: ${method} failed: it is ${state}. Start another one.`);
  }
}

/** Resets all devices: the only way out of `resuming` without data. @returns the errors */
async function resetAll({ all }: DeviceSet): Promise<Error[]> {
  const results = await Promise.allSettled(all.map(({ device }) => device.reset()));
  return results.flatMap((result) => (result.status === 'rejected' ? asError(result.reason) : []));
}
