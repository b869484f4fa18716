/**
 * An address space whose mappings another process removes. Recorded memory stays held until the mapping is certainly
 * gone.
 */
import { NativeMemoryFile, type NativeVfioDevice } from '#native';
import { setImmediate as turn } from 'node:timers/promises';
import { Edu } from '../../../examples/devices/edu.ts';
import { testWith } from '../support/devices.ts';
import { nativeEdu } from '../support/native-rig.ts';
import { pinnedAtRest, pinnedRoughly } from '../support/pins.ts';
import { pattern } from '../support/rig.ts';
import { Witnesses } from '../support/witnesses.ts';
import { read } from './support/exposed-space.ts';
import { byFile, byPlace, mapInto, unmapAll, unmapFrom, words } from '../support/native-calls.ts';
import { IoasRig } from './support/ioas-rig.ts';
import { placedFile } from '../support/placed-file.ts';
import { OtherProcess } from './support/other-process.ts';
import { codeAndErrno } from '../../support/native-error.ts';

const IOVA = 0x1000_0000n;
const PAGE = 0x1000n;
const PART = 4n * PAGE;
/** Takes a while to be pinned. */
const MUCH = 256n << 20n;
const BYTES = Edu.BUFFER_SIZE;
const IN_USE = { code: 'ERR_VA_IN_USE' };

testWith(
  { edu: 1 },
  'an unmap of a lost mapping fails and keeps its record; a later mapping there, or the end of the space, ends it',
  async (t, { edu: [bdf = ''] }) => {
    const rig = await IoasRig.open(t, bdf);
    const { ioas } = rig;
    const edu = nativeEdu(bdf, rig.devices[0] as NativeVfioDevice);
    const witnesses = new Witnesses();
    const { file, reservation } = placedFile(4n * PART);
    const places = [0n, 1n, 2n, 3n].map((place) => place * PART);
    mapInto(ioas, reservation, [], words(...places.map((at) => byPlace(IOVA + at, PART, at))));
    const held = () =>
      places.map((at) => {
        try {
          reservation.unmap(at, PART);
          return false;
        } catch (error) {
          return codeAndErrno(error) === IN_USE.code;
        }
      });

    const other = await OtherProcess.start();
    t.is(await other.unmap(IOVA + PART, PART), String(PART));
    await other.end();
    file.write(PART, pattern(1));
    await edu.load(IOVA, BYTES);
    await edu.store(IOVA + PART, BYTES);
    t.deepEqual(read(file, PART), pattern(1), 'it is lost');
    t.is(ioas.mappingCount, 4);
    const lost = t.throws(() => unmapFrom(ioas, IOVA, 4n * PART), { code: 'ERR_UNMAP_FAILED', message: /ENOENT/ });
    t.regex(lost?.message ?? '', /0x10004000\.\.0x10008000/, 'the error names the lost mapping');
    t.is(ioas.mappingCount, 3, 'the one before it is unmapped');
    t.deepEqual(held(), [false, true, true, true]);
    t.throws(() => unmapFrom(ioas, IOVA + PART, PART), { code: 'ERR_UNMAP_FAILED', message: /ENOENT/ }, 'each time');

    // A mapping inside the lost one: the kernel accepts it, so the record of the lost one is stale, and ends.
    const page = NativeMemoryFile.create(PAGE, 'page', 0);
    mapInto(ioas, undefined, [page], words(byFile(IOVA + PART + PAGE, PAGE)));
    t.is(ioas.mappingCount, 3);
    t.deepEqual(held(), [false, false, true, true]);
    unmapFrom(ioas, IOVA + PART, PART);
    t.is(ioas.mappingCount, 2);

    // Another mapping is lost in the kernel: closing the address space removes its record.
    const another = await OtherProcess.start();
    t.is(await another.unmap(IOVA + 2n * PART, PART), String(PART));
    await another.end();
    await edu.store(IOVA + 3n * PART, BYTES);
    t.throws(() => unmapAll(ioas), { code: 'ERR_UNMAP_FAILED', message: /ENOENT/ });
    t.deepEqual(held(), [false, false, true, true]);
    t.is(witnesses.changed, 0);

    for (const device of rig.devices.splice(0)) device.close();
    ioas.close();
    t.is(ioas.mappingCount, 0);
    t.deepEqual(held(), [false, false, false, false]);
    reservation.close();
    t.is(await pinnedAtRest(), 0);
  },
);

testWith(
  { edu: 1 },
  'a batch whose rollback fails reports it, and its remaining mappings stay on record',
  async (t, { edu: [bdf = ''] }) => {
    const rig = await IoasRig.open(t, bdf);
    const { ioas } = rig;
    const other = await OtherProcess.start();
    t.teardown(() => other.end());
    const pinned = await pinnedAtRest();
    const small = placedFile(PART);
    const big = NativeMemoryFile.create(MUCH, 'much', 0);
    const home = NativeMemoryFile.create(PART, 'home', 0);
    mapInto(ioas, undefined, [home], words(byFile(IOVA, PART)));
    const requests = words(
      byPlace(IOVA + PART, PART),
      byFile(1n << 32n, MUCH),
      byFile(IOVA, PART, { which: 1 }), // is mapped
    );
    const mapping = ioas.mapAsync(small.reservation, [big, home], requests);
    // The first is mapped and much is being pinned: now the first is removed.
    while (pinnedRoughly() - pinned < 1000) await turn();
    t.is(await other.unmap(IOVA + PART, PART), String(PART));
    const failure = await mapping;
    t.is(failure?.failed.index, 2);
    t.is(codeAndErrno(failure?.failed.error), 'ERR_MAP_FAILED EEXIST');
    const [stuck, ...rest] = failure?.stillMapped ?? [];
    t.is(stuck?.index, 0, 'the remaining mapping of the batch');
    t.is(codeAndErrno(stuck?.error), 'ERR_UNMAP_FAILED ENOENT');
    t.deepEqual(stuck?.error.range, { start: 0x10004000n, end: 0x10008000n }, 'the mapping that is still there');
    t.deepEqual(rest, [], 'and nothing else');
    t.is(ioas.mappingCount, 2, 'the earlier mapping, and the unknown one');
    t.is(await pinnedAtRest(), pinned + Number(PART / PAGE));
    t.throws(() => small.reservation.unmap(0n, PART), IN_USE);
    for (const device of rig.devices.splice(0)) device.close();
    ioas.close();
    small.reservation.close();
  },
);
