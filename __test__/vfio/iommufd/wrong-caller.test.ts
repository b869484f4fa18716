/**
 * Wrong calls of the native core with iommufd while a device does DMA. All bytes land in mapped memory, and no mapped
 * memory is unmapped under the device.
 */
import { NativeIommufd, NativePrivateMemory, NativeVfioDevice, NativeVfioGroup } from '#native';
import { ftruncateSync } from 'node:fs';
import { shows } from '../support/exposed-memory.ts';
import { testWith } from '../support/devices.ts';
import { collectGarbage, groupOf } from '../support/native-rig.ts';
import { Witnesses } from '../support/witnesses.ts';
import { type RejectedCall, assertRejected, unmapCalls } from '../support/rejected-calls.ts';
import { BAR, ExposedSpace, FILE, type Handles, MAPPINGS, PRIVATE, RAM } from './support/exposed-space.ts';
import { byFile, byPlace, mapInto, unmapAll, unmapFrom, words } from '../support/native-calls.ts';
import { IoasRig, fileNumberOf } from './support/ioas-rig.ts';
import { placedFile } from '../support/placed-file.ts';

const PAGE = 0x1000n;
/** Outside of the reservation and of the IOMMU's mappings. */
const FREE = 0x80_0000n;

testWith(
  { edu: 1, ivshmem: 1 },
  'iommufd: no wrong call unmaps memory under a device that does DMA',
  async (t, { edu: [engine = ''], ivshmem: [peerBdf = ''] }) => {
    const exposed = await ExposedSpace.open(t, engine, peerBdf);
    const witnesses = new Witnesses();
    const { iommufd, ioas, devices } = exposed.rig;
    const handles = exposed.handles as Handles;
    const { reservation, ram, privateMemory, file, barFile, peer } = handles;
    const other = new NativePrivateMemory(PAGE, false);
    const turn = async (what: string, calls: readonly RejectedCall[] = []) => {
      await exposed.carry(t, what, () => assertRejected(t, calls));
      t.is(ioas.mappingCount, MAPPINGS, what);
      witnesses.add();
    };
    await turn('at first');
    const lease = reservation.lease(BigUint64Array.of(RAM.at, RAM.length));
    reservation.releaseLeases(lease, 1);
    const place = (at: bigint, length: bigint) => () =>
      mapInto(ioas, reservation, [], words(byPlace(FREE, length, at)));

    await turn('leases', [
      ['twice', 'ERR_INVALID_ARGUMENT', () => reservation.releaseLeases(lease, 1)],
      ['mapping absent memory', 'ERR_VA_NOT_MAPPED', place(RAM.length, PAGE)],
      ['mapping past the end of memory', 'ERR_VA_NOT_MAPPED', place(RAM.at, RAM.length + PAGE)],
      ['mapping memory in two pieces', 'ERR_VA_NOT_MAPPED', place(RAM.at, PRIVATE.at + PRIVATE.length)],
      ['mapping beyond the reservation', 'ERR_OUT_OF_RANGE', place(reservation.length, PAGE)],
    ]);
    for (const [name, place] of Object.entries({ RAM, PRIVATE })) {
      await turn(name, unmapCalls(place, { reservation, file: ram }, other));
    }
    const refused = 'ERR_UNMAP_FAILED$'; // rejected before the kernel, which would unmap the rest
    for (const { iova, length } of [RAM, PRIVATE, FILE, BAR]) {
      await turn(`unmapping a part of ${iova}`, [
        ['its first half', refused, () => unmapFrom(ioas, iova, length / 2n)],
        ['its last page', refused, () => unmapFrom(ioas, iova + length - PAGE, PAGE)],
        ['across its end', refused, () => unmapFrom(ioas, iova + length - PAGE, 16n * PAGE)],
        ['less than a page of it', refused, () => unmapFrom(ioas, iova, 1n)],
        ['all addresses before it, and its first page', refused, () => unmapFrom(ioas, 0n, iova + PAGE)],
        ['all but its first page, and the addresses after it', refused, () => unmapFrom(ioas, iova + PAGE, 1n << 40n)],
        ['a gap', null, () => unmapFrom(ioas, iova + length, 16n * PAGE)],
      ]);
    }
    await turn('numbers', [
      ['unmap past the highest address', 'ERR_OUT_OF_RANGE', () => unmapFrom(ioas, (1n << 64n) - PAGE, 2n * PAGE)],
      ['unmap nothing', 'ERR_EMPTY_RANGE', () => unmapFrom(ioas, RAM.iova, 0n)],
      ['half a range', 'ERR_INVALID_ARGUMENT', () => ioas.unmap(BigUint64Array.of(RAM.iova, RAM.length, 0n), true)],
      ['numbers that are not words', '', () => ioas.unmap([RAM.iova, RAM.length] as never, false)],
      ['a device below zero', 'ERR_INVALID_ARGUMENT', () => NativeVfioDevice.openByFileAsync('none', -1, iommufd)],
    ]);
    await turn('kinds', [
      ['no file', '', () => mapInto(ioas, undefined, [{} as never], words(byFile(FREE, PAGE)))],
      [
        'a reservation for a file',
        '',
        () => mapInto(ioas, undefined, [reservation as never], words(byFile(FREE, PAGE))),
      ],
      ['a file for a reservation', '', () => mapInto(ioas, ram as never, [], words(byPlace(FREE, PAGE)))],
      ['its method on a file', '', () => ioas.info.call(file as never)],
      ['an address space for an iommufd', '', () => NativeVfioDevice.openByFileAsync('x', 0, ioas as never)],
      ['attaching to an iommufd', '', () => devices[0]?.attach(iommufd as never)],
      ['truncating a sealed file', 'EPERM', () => ftruncateSync(file.fd, 0)],
    ]);

    const stranger = NativeIommufd.open();
    const elsewhere = stranger.newIoas();
    const beside = iommufd.newIoas();
    t.teardown(() => [elsewhere, beside].map((space) => space.close()));
    await turn('closing', [
      ['the address space', 'ERR_DEVICE_IN_USE', () => ioas.close()],
      ['the device whose BAR is mapped', 'ERR_DEVICE_IN_USE', () => peer.close()],
      ['its group', 'ERR_GROUP_OPEN EBUSY', () => NativeVfioGroup.open(groupOf(engine))],
    ]);
    const open = (number: number, home: NativeIommufd) => NativeVfioDevice.openByFileAsync(engine, number, home);
    await t.throwsAsync(
      open(4096, iommufd),
      { code: 'ERR_DEVICE_OPEN', message: /ENOENT/ },
      'an invalid device number',
    );
    for (const home of [iommufd, stranger]) {
      await t.throwsAsync(open(fileNumberOf(engine), home), { code: 'ERR_DEVICE_OPEN' }, 'a device twice');
    }
    for (const space of [ioas, beside, elsewhere]) {
      await t.throwsAsync(devices[0]?.attach(space) ?? Promise.resolve(), { code: 'ERR_DEVICE_IN_USE' });
    }
    await turn('attaching twice');

    await turn('handles', [
      ['close the file', null, () => file.close()],
      ['close RAM', null, () => ram.close()],
      ['close private memory', null, () => privateMemory.close()],
      ["close the device's file", null, () => barFile.close()],
      ['close iommufd', null, () => iommufd.close()],
      ['an address space of a closed iommufd', 'ERR_CLOSED', () => iommufd.newIoas()],
      [
        'a device of a closed iommufd',
        'ERR_CLOSED',
        () => NativeVfioDevice.openByFileAsync(engine, fileNumberOf(engine), iommufd),
      ],
      ['a closed file', 'ERR_CLOSED', () => mapInto(ioas, undefined, [file], words(byFile(FREE, PAGE)))],
    ]);
    await turn('without handles', unmapCalls(RAM, { reservation, file: exposed.observer }, other));

    unmapFrom(ioas, RAM.iova, RAM.length);
    t.true(await exposed.leavesMemoryUnchanged(RAM.iova), 'unmapped: the device reaches nothing');
    reservation.unmap(RAM.at, RAM.length);
    witnesses.add();
    t.true(await exposed.leavesMemoryUnchanged(RAM.iova + PAGE));
    unmapFrom(ioas, FILE.iova, FILE.length);
    t.true(await exposed.leavesMemoryUnchanged(FILE.iova));
    t.is(witnesses.changed, 0, `${witnesses.count} pieces of other memory`);
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'iommufd: memory outlives every handle on it while an address space maps it',
  async (t, { edu: [engine = ''], ivshmem: [peerBdf = ''] }) => {
    const exposed = await ExposedSpace.open(t, engine, peerBdf);
    const witnesses = new Witnesses();
    const trace = new WeakRef((exposed.handles as Handles).reservation);
    exposed.handles = undefined;
    exposed.rig.devices.length = 1;
    await collectGarbage();
    t.is(trace.deref(), undefined, 'JavaScript has released the reservation');
    for (let round = 0; round < 16; round++) witnesses.add();
    await exposed.carry(t, 'forgotten');
    const { ioas } = exposed.rig;
    t.is(ioas.mappingCount, MAPPINGS);
    t.throws(() => ioas.close(), { message: /has 2 device/ });
    t.is(witnesses.changed, 0);
    unmapAll(ioas);
    witnesses.add();
    await collectGarbage(); // the dropper's thread closes the peer
    t.throws(() => ioas.close(), { message: /has 1 device/ }, 'the peer is closed with its mapping');
    t.false(shows('memfd:ram', RAM.length));
    for (const { iova } of [RAM, PRIVATE, FILE, BAR]) t.true(await exposed.leavesMemoryUnchanged(iova));
    t.is(witnesses.changed, 0);
  },
);

testWith(
  { edu: 1 },
  'iommufd: memory that is mapped twice is held until both mappings are removed, in any address space',
  async (t, { edu: [bdf = ''] }) => {
    const rig = await IoasRig.open(t, bdf);
    const beside = rig.iommufd.newIoas();
    const { reservation } = placedFile(4n * PAGE);
    mapInto(rig.ioas, reservation, [], words(byPlace(RAM.iova, 4n * PAGE), byPlace(FREE, 4n * PAGE, 0n, false)));
    mapInto(beside, reservation, [], words(byPlace(RAM.iova, 4n * PAGE)));
    const held = (why: string) => {
      t.throws(() => reservation.unmap(0n, PAGE), { code: 'ERR_VA_IN_USE' }, why);
      t.throws(() => reservation.close(), { code: 'ERR_VA_IN_USE' }, why);
    };
    held('three mappings');
    unmapFrom(rig.ioas, RAM.iova, 4n * PAGE);
    held('two mappings');
    unmapAll(rig.ioas);
    held('the one without a device');
    beside.close();
    reservation.close();
  },
);
