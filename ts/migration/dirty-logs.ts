/** Starts the logs of writes to RAM: of the devices themselves, of the IOMMU, and of the processors. */
import { PeerDmaError } from '../errors.ts';
import { DirtyTracking } from '../guest/dirty-tracking.ts';
import { guestAddressSpaceOf } from '../guest/guest-memory.ts';
import type { Undo } from '../guest/transaction.ts';
import { DeviceLogTracker } from './device-log-tracker.ts';
import type { DeviceSet } from './device-set.ts';
import { DirtyRam } from './dirty-ram.ts';
import type { MigrationOptions } from './migration-options.ts';

/**
 * @param undo receives the end of each log
 * @throws {PeerDmaError} `ERR_UNSUPPORTED` for a device whose writes nothing logs; the error of a log
 * @internal
 */
export async function startLogs(
  { memory, machine, iommu }: MigrationOptions,
  devices: DeviceSet,
  undo: Undo[],
): Promise<DirtyRam> {
  const space = guestAddressSpaceOf(memory);
  const own = devices.all.flatMap(({ name, migration: { dmaLog } }) =>
    dmaLog === undefined ? [] : new DeviceLogTracker(name, dmaLog, space),
  );
  const unlogged = devices.all.find(({ migration }) => migration.dmaLog === undefined);
  if (unlogged !== undefined && iommu === undefined) {
    const text = `the device "${unlogged.name}" cannot migrate: it does not log its DMA writes, and no IOMMU does`;
    throw new PeerDmaError('ERR_UNSUPPORTED', `${text}. Pass the VfioContainerManager as the option iommu.`);
  }
  const logs: DirtyTracking[] = [];
  const add = (log: DirtyTracking): void => {
    logs.push(log);
    undo.push(() => log.stop());
  };
  const ofDevices = new DirtyTracking(space, () => {});
  await space.betweenChanges(() => ofDevices.join(own));
  add(ofDevices);
  if (unlogged !== undefined && iommu !== undefined) add(await iommu.startDirtyTracking());
  if (machine !== undefined) add(await machine.startDirtyTracking());
  return new DirtyRam(space, logs);
}
