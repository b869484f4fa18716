/**
 * Wrong calls of the native core while a device does DMA. All bytes land in mapped memory, and no mapped memory is
 * unmapped under the device.
 */
import {
  NativeMemoryFile,
  NativePrivateMemory,
  NativeReservation,
  NativeVfioContainer,
  NativeVfioGroup,
} from '#native';
import { ftruncateSync } from 'node:fs';
import { testWith } from './support/devices.ts';
import { BAR, ExposedMemory, type Handles, PRIVATE, type Place, RAM } from './support/exposed-memory.ts';
import { byFile, byPlace, mapInto, unmapAll, unmapFrom, words } from './support/native-calls.ts';
import { NativeRig, collectGarbage, groupOf } from './support/native-rig.ts';
import { placedFile } from './support/placed-file.ts';
import { Witnesses } from './support/witnesses.ts';
import { type RejectedCall, assertRejected, unmapCalls } from './support/rejected-calls.ts';

const PAGE = 0x1000n;
/** Outside of the reservation and of the IOMMU's mappings. */
const FREE = 0x80_0000n;

function onTheMappings({ iova, length }: Place, { container }: ExposedMemory['rig']): RejectedCall[] {
  const refused = 'ERR_UNMAP_FAILED EINVAL';
  return [
    ['unmap the first half', refused, () => unmapFrom(container, iova, length / 2n)],
    ['unmap the last page', refused, () => unmapFrom(container, iova + length - PAGE, PAGE)],
    ['unmap across its end', refused, () => unmapFrom(container, iova + length - PAGE, 16n * PAGE)],
  ];
}

testWith(
  { edu: 1, ivshmem: 1 },
  'no wrong call unmaps memory under a device that does DMA',
  async (t, { edu, ivshmem }) => {
    const exposed = await ExposedMemory.open(t, edu[0] ?? '', ivshmem[0] ?? '');
    const witnesses = new Witnesses();
    const { rig } = exposed;
    const { container } = rig;
    const handles = exposed.handles as Handles;
    const { reservation, file, privateMemory, peer } = handles;
    const other = new NativePrivateMemory(PAGE, false);
    const turn = async (what: string, wrongs: readonly RejectedCall[]) => {
      await exposed.carry(t, what, () => assertRejected(t, wrongs));
      t.is(container.mappingCount, 3, what);
      witnesses.add();
    };
    await exposed.carry(t, 'at first');
    const leases = reservation.lease(
      BigUint64Array.from([RAM, PRIVATE, BAR].flatMap(({ at, length }) => [at, length])),
    );
    reservation.releaseLeases(leases, 3);
    const place = (at: bigint, length: bigint) => () =>
      mapInto(container, reservation, [], words(byPlace(FREE, length, at)));

    await turn('leases', [
      ['twice', 'ERR_INVALID_ARGUMENT', () => reservation.releaseLeases(leases, 3)],
      ['none', 'ERR_INVALID_ARGUMENT', () => reservation.releaseLeases(0, 1)],
      ...[-1, 1.5, 2 ** 53, NaN].map(
        (number) => [String(number), 'ERR_INVALID_ARGUMENT', () => reservation.releaseLeases(number, 1)] as const,
      ),
      ['too many', 'ERR_INVALID_ARGUMENT', () => reservation.releaseLeases(leases, 2 ** 52)],
      ['mapping absent memory', 'ERR_VA_NOT_MAPPED', place(RAM.length, PAGE)],
      ['mapping past the end of memory', 'ERR_VA_NOT_MAPPED', place(RAM.at, RAM.length + PAGE)],
      ['mapping memory in two pieces', 'ERR_VA_NOT_MAPPED', place(RAM.at, PRIVATE.at + PRIVATE.length)],
      ['mapping beyond the reservation', 'ERR_OUT_OF_RANGE', place(reservation.length, PAGE)],
      ['mapping across its end', 'ERR_OUT_OF_RANGE', place(reservation.length - PAGE, 2n * PAGE)],
      ['mapping an empty range', 'ERR_EMPTY_RANGE', place(RAM.at, 0n)],
      ['read one', 'ERR_INVALID_ARGUMENT', () => reservation.leaseRead(leases, 0n, new Uint8Array(8))],
    ]);
    for (const [name, place] of Object.entries({ RAM, PRIVATE, BAR })) {
      await turn(name, [...unmapCalls(place, handles, other), ...onTheMappings(place, rig)]);
    }
    await turn('numbers', [
      ['beyond the reservation', 'ERR_OUT_OF_RANGE', () => reservation.unmap(reservation.length - PAGE, 2n * PAGE)],
      ['past the highest number', 'ERR_OUT_OF_RANGE', () => reservation.unmap((1n << 64n) - PAGE, 2n * PAGE)],
      ['below zero', 'ERR_INVALID_ARGUMENT', () => reservation.unmap(-PAGE, PAGE)],
      ['above u64', 'ERR_OUT_OF_RANGE', () => reservation.unmap(1n << 64n, PAGE)],
      ['nothing', 'ERR_EMPTY_RANGE', () => reservation.unmap(RAM.at, 0n)],
      ['not a page', 'ERR_UNALIGNED', () => reservation.unmap(RAM.at + 1n, PAGE)],
      ['a lease of unmapped memory', 'ERR_VA_NOT_MAPPED', () => reservation.lease(BigUint64Array.of(RAM.length, PAGE))],
      ['half a request', 'ERR_INVALID_ARGUMENT', () => mapInto(container, reservation, [], words([FREE, PAGE]))],
      [
        'a request of unknown flags',
        'ERR_INVALID_ARGUMENT',
        () => mapInto(container, reservation, [], words([FREE, PAGE, 8n, RAM.at])),
      ],
      [
        'half a range',
        'ERR_INVALID_ARGUMENT',
        () => container.unmap(BigUint64Array.of(RAM.iova, RAM.length, PRIVATE.iova), true),
      ],
      [
        'an IOMMU range past the highest number',
        'ERR_OUT_OF_RANGE',
        () => unmapFrom(container, (1n << 64n) - PAGE, 2n * PAGE),
      ],
      ['an empty IOMMU range', 'ERR_EMPTY_RANGE', () => unmapFrom(container, RAM.iova, 0n)],
      ['numbers that are not words', '', () => container.unmap([RAM.iova, RAM.length] as never, false)],
      [
        'a file that is too short',
        'ERR_OUT_OF_RANGE',
        () => reservation.mapFile(FREE, 2n * RAM.length, file, 0n, true, false),
      ],
      ['private memory that is placed', 'ERR_OVERLAP', () => reservation.mapPrivate(FREE, PAGE, privateMemory, 0n)],
      [
        'the same for a part',
        'ERR_OVERLAP',
        () => reservation.mapPrivate(FREE, PAGE, privateMemory, PRIVATE.length - PAGE),
      ],
    ]);
    await turn('kinds', [
      ['no reservation', '', () => mapInto(container, {} as never, [], words(byPlace(FREE, PAGE)))],
      ['no object', 'ERR_INVALID_ARGUMENT', () => mapInto(container, undefined, [], words(byPlace(FREE, PAGE)))],
      ['a file', 'ERR_INVALID_ARGUMENT', () => mapInto(container, undefined, [file], words(byFile(FREE, PAGE)))],
      [
        'a file for a reservation',
        '',
        () =>
          mapInto(
            container,
            Object.setPrototypeOf(NativeMemoryFile.fromFd(file.fd), NativeReservation.prototype) as never,
            [],
            words(byPlace(FREE, PAGE)),
          ),
      ],
      ['its method on a file', '', () => NativeReservation.prototype.close.call(file as never)],
      [
        'a private prototype',
        '',
        () => reservation.unmap.call(Object.create(NativeReservation.prototype) as never, 0n, PAGE),
      ],
      ['truncating a sealed file', 'EPERM', () => ftruncateSync(file.fd, 0)],
    ]);
    const stranger = NativeVfioContainer.open();
    t.teardown(() => stranger.close());
    await turn('closing', [
      ['the container', 'ERR_DEVICE_IN_USE', () => container.close()],
      ...rig.groups.map((group) => ['a group', 'ERR_DEVICE_IN_USE', () => group.close()] as const),
      ['the device whose BAR is mapped', 'ERR_DEVICE_IN_USE', () => peer.close()],
      ['a group twice', 'ERR_GROUP_OPEN EBUSY', () => NativeVfioGroup.open(groupOf(edu[0] ?? ''))],
      [
        'a map without an IOMMU',
        'ERR_CONTAINER_EMPTY',
        () => mapInto(stranger, reservation, [], words(byPlace(FREE, PAGE, RAM.at))),
      ],
    ]);
    const [own, others] = rig.groups as [NativeVfioGroup, NativeVfioGroup];
    await t.throwsAsync(own.attachAsync(container), { code: 'ERR_GROUP_ATTACH' }, 'a group that is attached');
    await t.throwsAsync(others.attachAsync(stranger), { code: 'ERR_GROUP_ATTACH' }, 'to another container');
    await t.throwsAsync(container.setIommuAsync(), { code: 'ERR_SET_IOMMU_FAILED' }, 'the IOMMU twice');
    await turn('attaching twice', []);
    await turn('handles', [
      ['close the file', null, () => file.close()],
      ['close private memory', null, () => privateMemory.close()],
      ["close the device's file", null, () => handles.barFile.close()],
    ]);
    await turn('without handles', unmapCalls(RAM, { ...handles, file: exposed.observer }, other));

    unmapFrom(container, RAM.iova, RAM.length);
    t.true(await exposed.leavesMemoryUnchanged(RAM.iova), 'unmapped: the device reaches nothing');
    reservation.unmap(RAM.at, RAM.length);
    witnesses.add();
    t.true(await exposed.leavesMemoryUnchanged(RAM.iova + 0x1000n));
    t.is(witnesses.changed, 0, `${witnesses.count} pieces of other memory`);
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'memory outlives every handle on it while the IOMMU maps it',
  async (t, { edu, ivshmem }) => {
    const exposed = await ExposedMemory.open(t, edu[0] ?? '', ivshmem[0] ?? '');
    const witnesses = new Witnesses();
    const trace = new WeakRef((exposed.handles as Handles).reservation);
    exposed.handles = undefined;
    exposed.rig.groups.length = 0;
    await collectGarbage();
    t.is(trace.deref(), undefined, 'JavaScript has released the reservation');
    for (let round = 0; round < 16; round++) witnesses.add();
    await exposed.carry(t, 'forgotten');
    t.is(exposed.rig.container.mappingCount, 3);
    t.is(witnesses.changed, 0);
    unmapAll(exposed.rig.container);
    witnesses.add();
    for (const { iova } of [RAM, PRIVATE, BAR]) t.true(await exposed.leavesMemoryUnchanged(iova));
    t.is(witnesses.changed, 0);
  },
);

testWith(
  { edu: 1 },
  'memory that is mapped twice is held until both mappings are removed, and a range belongs to one reservation',
  async (t, { edu: [bdf = ''] }) => {
    const { container } = await NativeRig.open(t, bdf);
    const [mine, theirs] = [placedFile(4n * PAGE), placedFile(PAGE)];
    const [first, second] = [RAM.iova, PRIVATE.iova];
    const both = words(byPlace(first, 4n * PAGE), byPlace(second, 4n * PAGE, 0n, false));
    mapInto(container, mine.reservation, [], both);
    t.throws(() => mapInto(container, theirs.reservation, [], words(byPlace(FREE, PAGE, PAGE))), {
      code: 'ERR_VA_NOT_MAPPED',
    });
    // The same range of another reservation is other memory.
    mapInto(container, theirs.reservation, [], words(byPlace(FREE, PAGE)));
    unmapFrom(container, FREE, PAGE);
    theirs.reservation.unmap(0n, PAGE);
    unmapFrom(container, first, 4n * PAGE);
    t.throws(() => mine.reservation.unmap(0n, PAGE), { code: 'ERR_VA_IN_USE' });
    t.throws(() => mine.reservation.close(), { code: 'ERR_VA_IN_USE' });
    unmapFrom(container, second, 4n * PAGE);
    mine.reservation.close();
    theirs.reservation.close();
  },
);
