/**
 * The devices of a VM, whose migration states change together.
 *
 * While one device accepts no DMA, no other one may do DMA to it. So all devices are quiesced before the first one
 * stops, and all accept DMA before the first one does some.
 */
import { readEntries } from '../arguments.ts';
import { rollbackFailed } from '../dma/mapping-error.ts';
import { PeerDmaError, asError } from '../errors.ts';
import type { GuestMemory } from '../guest/guest-memory.ts';
import type { DeviceMigration, MigrationState } from '../pci/migration/device-migration.ts';
import { type PhysicalFunction, requireFunction } from '../pci/physical-function.ts';
import { requireQuiescence } from './quiescence.ts';

/** A device of the set. @internal */
export interface MigratingDevice {
  readonly name: string;
  readonly device: PhysicalFunction;
  readonly migration: DeviceMigration;
}

/** @internal */
export class DeviceSet {
  readonly all: readonly MigratingDevice[];
  /** Those that can be quiesced. */
  readonly #quiet: readonly MigratingDevice[];
  /** Those that cannot: they do DMA until they stop. */
  readonly #others: readonly MigratingDevice[];

  /**
   * @param devices by name
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` for a device that cannot migrate, or for several that cannot be quiesced
   * and can reach each other; `ERR_MIGRATION_STATE` for one that does not run
   */
  constructor(memory: GuestMemory, devices: Readonly<Record<string, PhysicalFunction>>) {
    this.all = readEntries(devices, 'devices by name').map(([name, device]) => migratingDevice(name, device));
    this.#quiet = this.all.filter(({ migration }) => migration.supports.p2p);
    this.#others = this.all.filter(({ migration }) => !migration.supports.p2p);
    requireQuiescence(memory, this.#others);
  }

  /** Lets devices transfer data while they run, if they can. */
  async startPreCopy(): Promise<void> {
    const able = this.all.filter(({ migration }) => migration.supports.preCopy);
    await changeStates(able, () => 'pre-copy');
  }

  /** Stops all devices. One that transfers data continues. */
  async stop(): Promise<void> {
    await changeStates(this.#quiet, (state) => (state === 'pre-copy' ? 'pre-copy-p2p' : 'running-p2p'));
    const stopped = (state: MigrationState): MigrationState => (state.startsWith('pre-copy') ? 'stop-copy' : 'stop');
    await changeStates(this.#others, stopped);
    await changeStates(this.#quiet, stopped);
  }

  /**
   * Lets all devices run, whatever their states are.
   *
   * @returns the errors of those that do not
   */
  async resume(): Promise<Error[]> {
    const isIdle = (state: MigrationState): boolean => state !== 'running' && state !== 'pre-copy';
    return [
      ...(await tryStates(this.#quiet, (state) => (isIdle(state) ? 'running-p2p' : state))),
      ...(await tryStates(this.#others, () => 'running')),
      ...(await tryStates(this.#quiet, () => 'running')),
    ];
  }

  /** Changes the state of all devices, which are stopped. */
  async changeStopped(to: 'stop' | 'stop-copy' | 'resuming'): Promise<void> {
    await changeStates(this.all, () => to);
  }
}

function migratingDevice(name: string, device: PhysicalFunction): MigratingDevice {
  requireFunction(device);
  const { migration } = device;
  if (migration === undefined) {
    const text = `the device "${name}" cannot migrate: its driver does not support it. Remove it from the VM first.`;
    throw new PeerDmaError('ERR_UNSUPPORTED', text);
  }
  const { state } = migration;
  if (state === 'running') return { name, device, migration };
  const remedy = state === 'error' ? 'Reset it.' : 'End its other migration.';
  const text = `the device "${name}" cannot migrate: it is in the migration state ${state}, not running. ${remedy}`;
  throw new PeerDmaError('ERR_MIGRATION_STATE', text);
}

/** Changes states at the same time, and waits for all. @throws the first error */
async function changeStates(
  devices: readonly MigratingDevice[],
  next: (state: MigrationState) => MigrationState,
): Promise<void> {
  const [error] = await tryStates(devices, next);
  if (error !== undefined) throw error;
}

async function tryStates(
  devices: readonly MigratingDevice[],
  next: (state: MigrationState) => MigrationState,
): Promise<Error[]> {
  const changes = devices.map(async ({ migration }) => {
    const { state } = migration;
    const to = next(state);
    if (to !== state) await migration.setState(to);
  });
  const results = await Promise.allSettled(changes);
  return results.flatMap((result, index) =>
    result.status === 'rejected' ? named(devices[index]?.name ?? '', asError(result.reason)) : [],
  );
}

/** Throws if there are errors: the first one, with the texts of the others. @internal */
export function throwAny([first, ...others]: readonly Error[]): void {
  if (first === undefined) return;
  throw others.length === 0 ? first : rollbackFailed(first, others);
}

/** Adds the device's name to an error. */
function named(name: string, error: Error): Error {
  if (!(error instanceof PeerDmaError)) return error;
  const { code, errno, syscall, bdf } = error;
  return new PeerDmaError(code, `the device "${name}": ${error.message}`, { errno, syscall, bdf, cause: error });
}
