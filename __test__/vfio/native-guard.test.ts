/**
 * The native core rejects every call that would unmap memory under an IOMMU mapping.
 */
import { NativeMemoryFile, NativeReservation, NativeVfioContainer, NativeVfioGroup } from '#native';
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { testWith } from './support/devices.ts';
import { byPlace, mapInto, unmapFrom, words } from './support/native-calls.ts';

const IOVA = 0x1000_0000n;
const LENGTH = 0x20_0000n;

testWith(
  { any: 1 },
  'memory under a live IOMMU mapping can be neither unmapped, replaced nor released',
  async (t, { any: [bdf = ''] }) => {
    const group = NativeVfioGroup.open(Number(basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`))));
    const container = NativeVfioContainer.open();
    await group.attachAsync(container);
    await container.setIommuAsync();
    const reservation = new NativeReservation(40);
    const file = NativeMemoryFile.create(LENGTH, 'guarded', 0);
    reservation.mapFile(0n, LENGTH, file, 0n, true, false);
    mapInto(container, reservation, [], words(byPlace(IOVA, LENGTH)));
    t.is(container.mappingCount, 1);

    const inUse = { code: 'ERR_VA_IN_USE' };
    t.throws(() => reservation.unmap(0n, LENGTH), inUse);
    t.throws(() => reservation.unmap(LENGTH - 0x1000n, 0x1000n), inUse);
    t.throws(() => reservation.mapFile(0n, 0x1000n, file, 0n, true, false), inUse);
    t.throws(() => reservation.close(), inUse);
    file.close();
    t.throws(() => container.close(), { code: 'ERR_DEVICE_IN_USE' });
    t.is(container.mappingCount, 1);

    t.throws(() => unmapFrom(container, IOVA, LENGTH / 2n), { code: 'ERR_UNMAP_FAILED', message: /EINVAL/ });
    t.throws(() => reservation.unmap(0n, LENGTH), inUse, 'a rejected unmap frees nothing');
    unmapFrom(container, IOVA, LENGTH);
    reservation.unmap(0n, LENGTH);
    reservation.close();
    group.close();
    container.close();
  },
);
