/** The side of a migration that continues: takes the copy of a VM, and lets its devices run. */
import { AddressRange, hex } from '../address-range.ts';
import { readOptions, requireBytes } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError, asError, throwAll } from '../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { MutationQueue } from '../guest/mutation-queue.ts';
import { transaction } from '../guest/transaction.ts';
import { INSPECT, objectText } from '../object-text.ts';
import type { DeviceMigration } from '../pci/migration/device-migration.ts';
import type { PhysicalFunction } from '../pci/physical-function.ts';
import { requireBigint } from '../number-types.ts';
import { valueText } from '../value-text.ts';
import { DeviceSet } from './device-set.ts';
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
 * @throws {PeerDmaError} as {@link startMigration}. All devices run then: as before, or reset if one of them was
 * prepared already
 */
export async function startRestore(options: RestoreOptions): Promise<MigrationTarget> {
  const { memory, devices: given } = readOptions(options, ['memory', 'devices']);
  guestAddressSpaceOf(memory); // throws if it is not guest memory
  const devices = new DeviceSet(memory, given);
  return transaction(async (undo) => {
    let isStopped = false;
    undo.push(() => (isStopped ? resetAll(devices) : devices.resume()));
    await devices.stop();
    isStopped = true;
    await devices.changeStopped('resuming');
    return new MigrationTarget(memory, devices);
  });
}

/** A VM that is being restored. Returned by {@link startRestore}. */
export class MigrationTarget {
  readonly #memory: GuestMemory;
  readonly #devices: DeviceSet;
  /** Writes and the end, one at a time. */
  readonly #queue = new MutationQueue('the restore');
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
   * A call waits for those before it. The bytes must not change until it resolves.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for an unknown kind or device; `ERR_NOT_MAPPED` for addresses that
   * are not RAM; `ERR_MIGRATION_DATA` if the device rejects the data; `ERR_MIGRATION_STATE` after its end
   */
  async write(chunk: MigrationChunk): Promise<void> {
    const { kind, gpa, device, bytes } = readOptions(chunk as Parts, PARTS, 'a chunk');
    const data = requireBytes(bytes as Uint8Array);
    await this.#queue.runAlways(async () => {
      this.#requireOpen('write');
      if (kind === 'ram') return this.#writeRam(gpa as bigint, data);
      if (kind === 'device') return this.#migrationOf(device).load([data]);
      const text = `the kind of a chunk is 'ram' or 'device', not ${valueText(kind)}`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    });
  }

  /**
   * Completes the restore: the devices check their data, then all run. Run the processors afterwards.
   *
   * The devices accept DMA of each other before the first one does some. If one does not run, all are stopped again.
   *
   * @throws {PeerDmaError} `ERR_MIGRATION_STATE` or `ERR_MIGRATION_DATA` of a device that rejects its data, or the
   * error of a device that does not run: close this object
   */
  complete(): Promise<void> {
    return this.#queue.runAlways(async () => {
      if (this.#isComplete) return;
      this.#requireOpen('complete');
      await transaction(async (undo) => {
        await this.#devices.changeStopped('stop');
        undo.push(() => this.#devices.tryStop());
        await this.#devices.run();
      });
      this.#isComplete = true;
    });
  }

  /**
   * Abandons a restore that is not complete: resets the devices, which run then. Idempotent.
   *
   * It waits for calls that are under way.
   *
   * @throws {PeerDmaError} the error of a device that could not be reset; call it again then
   */
  close(): Promise<void> {
    return this.#closing.once(() =>
      this.#queue.runAlways(async () => {
        this.#isClosed = true;
        if (!this.#isComplete) throwAll(await resetAll(this.#devices));
      }),
    );
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

  /** Device memory is not written: that would be an access to registers. */
  #writeRam(gpa: bigint, bytes: Uint8Array): void {
    requireBigint(gpa, 'gpa');
    if (bytes.length === 0) return;
    const range = AddressRange.of(gpa, BigInt(bytes.length));
    const { parts, gap } = guestAddressSpaceOf(this.#memory).map.flat.cover(range);
    const other = parts.find(({ value }) => value.kind !== 'ram')?.part.start ?? gap;
    if (other !== undefined) {
      const text = `the restore: write failed: ${hex(other)} in ${range} is not RAM. Use the RAM of the source.`;
      throw new PeerDmaError('ERR_NOT_MAPPED', text, { range });
    }
    this.#memory.write(gpa, bytes);
  }

  #migrationOf(device: unknown): DeviceMigration {
    const found = this.#devices.all.find(({ name }) => name === device);
    if (found !== undefined) return found.migration;
    const text = `the restore: no device has the name ${valueText(device)}. Use the names of the source.`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
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
