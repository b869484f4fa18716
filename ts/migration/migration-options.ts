/** The options of a migration. */
import { readArray, readEntries, readOptions } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import type { DirtyTracking } from '../guest/dirty-tracking.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import type { PhysicalFunction } from '../pci/physical-function.ts';

/** An object that logs writes to RAM: a {@link VfioContainerManager}, or a virtual machine. */
export interface DirtyLogSource {
  /** Devices whose writes it logs: all have to migrate. Default: not checked */
  readonly openDevices?: readonly PhysicalFunction[];
  /** Starts to log. */
  startDirtyTracking(): Promise<DirtyTracking>;
}

/** A machine whose processors are paused while its devices are stopped, such as that of `peerdma/kvm`. */
export interface MigratingMachine extends DirtyLogSource {
  /** `running` if it has to be paused. */
  readonly state: string;
  /** Pauses the processors. */
  pause(): Promise<void>;
  /** Continues after `pause`. */
  resume(): void;
}

/** Options of {@link startMigration}. */
export interface MigrationOptions {
  /** The memory of the VM. */
  readonly memory: GuestMemory;
  /** All its devices with DMA, by names that the data has. A {@link VfioDevice}, or a `SimulatedDevice`. */
  readonly devices: Readonly<Record<string, PhysicalFunction>>;
  /** Its machine. Default: none; the caller pauses the processors, and reports their writes by `markDirty` */
  readonly machine?: MigratingMachine;
  /**
   * The manager of its devices, for the writes of devices that do not log them. All that are open in it have to be in
   * `devices`. Default: none
   */
  readonly iommu?: DirtyLogSource;
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function readMigrationOptions(options: MigrationOptions): MigrationOptions {
  const read = readOptions(options, ['memory', 'devices', 'machine', 'iommu']) as MigrationOptions;
  guestAddressSpaceOf(read.memory); // throws if it is not guest memory
  if (read.machine !== undefined) requireMethods('machine', read.machine, ['pause', 'resume', 'startDirtyTracking']);
  if (read.iommu !== undefined) requireMethods('iommu', read.iommu, ['startDirtyTracking']);
  requireAllDevices(read);
  return read;
}

/** A device of the manager that is left out would go on writing into RAM that was copied. */
function requireAllDevices({ devices, iommu }: MigrationOptions): void {
  if (iommu?.openDevices === undefined) return;
  const given = new Set<unknown>(readEntries(devices, 'devices by name').map(([, device]) => device));
  const missing = readArray(iommu.openDevices, 'the open devices of "iommu"').find((device) => !given.has(device));
  if (missing === undefined) return;
  const text = `the VM cannot migrate without ${missing.bdf}, which is open. Pass it as one of devices, or close it.`;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf: missing.bdf });
}

function requireMethods<T extends object>(name: string, object: T, methods: readonly (keyof T & string)[]): void {
  const found = readOptions(object, methods, `the methods of "${name}"`);
  if (methods.every((method) => typeof found[method] === 'function')) return;
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"${name}" is an object with ${methods.join(', ')}`);
}
