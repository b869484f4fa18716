/**
 * The devices of a VM, whose migration states change together.
 *
 * While one device accepts no DMA, no other one may do DMA to it. So all devices are quiesced before the first one
 * stops, and all accept DMA before the first one does some.
 */
import { readEntries } from '../arguments.ts';
import { PeerDmaError, asError, throwAll } from '../errors.ts';
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

/** Devices whose states change at the same time, and their next states. */
type Step = readonly [devices: readonly MigratingDevice[], next: (state: MigrationState) => MigrationState];

/** @internal */
export class DeviceSet {
  readonly #memory: GuestMemory;
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
    this.#memory = memory;
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

  /**
   * Stops all devices. One that transfers data continues.
   *
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` if devices that cannot be quiesced can reach each other by now
   */
  async stop(): Promise<void> {
    requireQuiescence(this.#memory, this.#others);
    for (const step of this.#stopSteps()) await changeStates(...step);
  }

  /** Lets all devices run. If one fails, those that already run have to be stopped. */
  async run(): Promise<void> {
    for (const step of this.#runSteps()) await changeStates(...step);
  }

  /**
   * Stops all devices that can be stopped.
   *
   * @returns the errors of the others
   */
  tryStop(): Promise<Error[]> {
    return tryAll(this.#stopSteps());
  }

  /**
   * Lets all devices run that can, whatever their states are.
   *
   * @returns the errors of the others
   */
  resume(): Promise<Error[]> {
    return tryAll(this.#runSteps());
  }

  /** Changes the state of all devices, which are stopped. */
  async changeStopped(to: 'stop' | 'stop-copy' | 'resuming'): Promise<void> {
    await changeStates(this.all, () => to);
  }

  #stopSteps(): Step[] {
    const stopped = (state: MigrationState): MigrationState => (state.startsWith('pre-copy') ? 'stop-copy' : 'stop');
    return [
      [this.#quiet, (state) => (state === 'pre-copy' ? 'pre-copy-p2p' : 'running-p2p')],
      [this.#others, stopped],
      [this.#quiet, stopped],
    ];
  }

  #runSteps(): Step[] {
    const isIdle = (state: MigrationState): boolean => state !== 'running' && state !== 'pre-copy';
    return [
      [this.#quiet, (state) => (isIdle(state) ? 'running-p2p' : state)],
      [this.#others, () => 'running'],
      [this.#quiet, () => 'running'],
    ];
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

/** Changes states at the same time, and waits for all. @throws the errors of all */
async function changeStates(...step: Step): Promise<void> {
  throwAll(await tryStates(...step));
}

/** Takes all steps. @returns the errors */
async function tryAll(steps: readonly Step[]): Promise<Error[]> {
  const errors: Error[] = [];
  for (const step of steps) errors.push(...(await tryStates(...step)));
  return errors;
}

async function tryStates(...[devices, next]: Step): Promise<Error[]> {
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

/** Adds the device's name to an error. */
function named(name: string, error: Error): Error {
  if (!(error instanceof PeerDmaError)) return error;
  const { code, errno, syscall, bdf } = error;
  return new PeerDmaError(code, `the device "${name}": ${error.message}`, { errno, syscall, bdf, cause: error });
}
