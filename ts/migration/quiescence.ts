/** Devices that cannot be quiesced: which of them can be stopped without losing DMA between them. */
import type { GuestAddressSpace } from '../guest/guest-address-space.ts';
import { PeerDmaError } from '../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { fileMemoryOf } from '../memory/memory-file.ts';
import type { PhysicalFunction } from '../pci/physical-function.ts';
import type { MigratingDevice } from './device-set.ts';

/**
 * Requires that the devices which cannot be quiesced do not reach each other.
 *
 * One such device stops safely: all others are quiesced before it stops, and accept its DMA until then. Of two, the
 * first to stop would lose DMA of the second.
 *
 * @param devices all that cannot be quiesced
 * @throws {PeerDmaError} `ERR_UNSUPPORTED`
 * @internal
 */
export function requireQuiescence(memory: GuestMemory, devices: readonly MigratingDevice[]): void {
  if (devices.length < 2) return;
  const reached = devices.find(({ device }) => isReached(guestAddressSpaceOf(memory), device));
  if (reached === undefined) return;
  const names = devices.map(({ name }) => JSON.stringify(name)).join(' and ');
  const reason = `${names} have no state RUNNING_P2P, and other devices can write to "${reached.name}" by DMA`;
  const remedy = "Open them with peerToPeer: 'off', or remove all but one from the VM";
  throw new PeerDmaError('ERR_UNSUPPORTED', `the devices cannot be stopped without losing DMA: ${reason}. ${remedy}.`);
}

/** Whether an IOMMU has mapped memory of the device. */
function isReached(space: GuestAddressSpace, device: PhysicalFunction): boolean {
  const files = device.regions.flatMap((region) => {
    const backing = region?.mmapAreas.length ? region.backing() : 'private';
    return backing === 'private' ? [] : [fileMemoryOf(backing.file)];
  });
  const iommus = [...space.mappers].filter((mapper) => !mapper.mapsForProcessors);
  return space.byFile
    .of(files)
    .some((sub) =>
      iommus.some((mapper) =>
        mapper.status.in(sub.range).some(({ state }) => state !== 'skipped' && state !== 'failed'),
      ),
    );
}
