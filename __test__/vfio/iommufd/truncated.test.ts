/**
 * A file that is truncated while it is mapped. Files of MemoryFile cannot be truncated; files of a caller can.
 */
import { NativeMemoryFile, type NativeVfioDevice } from '#native';
import { closeSync, ftruncateSync, openSync, unlinkSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../examples/devices/edu.ts';
import { testWith } from '../support/devices.ts';
import { nativeEdu } from '../support/native-rig.ts';
import { pinnedAtRest } from '../support/pins.ts';
import { pattern } from '../support/rig.ts';
import { Witnesses } from '../support/witnesses.ts';
import { isSame, read } from './support/exposed-space.ts';
import { byFile, byPlace, mapInto, unmapAll, unmapFrom, words } from '../support/native-calls.ts';
import { IoasRig } from './support/ioas-rig.ts';
import { placedFile } from '../support/placed-file.ts';

const IOVA = 0x1000_0000n;
const PAGE = 0x1000n;
const LENGTH = 16n * PAGE;
const BYTES = Edu.BUFFER_SIZE;

/** Shared memory whose length is not sealed. */
function unsealed(t: ExecutionContext): { fd: number; file: NativeMemoryFile } {
  const path = `/dev/shm/peerdma-${process.pid}`;
  const fd = openSync(path, 'wx+');
  unlinkSync(path);
  t.teardown(() => closeSync(fd));
  ftruncateSync(fd, Number(LENGTH));
  return { fd, file: NativeMemoryFile.fromFd(fd) };
}

/** By file, and by host address. */
for (const placed of [false, true]) {
  testWith(
    { edu: 1 },
    `iommufd: a file truncated while mapped by ${placed ? 'host address' : 'file'} keeps its pages for the device`,
    async (t, { edu: [bdf = ''] }) => {
      const rig = await IoasRig.open(t, bdf);
      const { ioas } = rig;
      const edu = nativeEdu(bdf, rig.devices[0] as NativeVfioDevice);
      const witnesses = new Witnesses();
      const pinned = await pinnedAtRest();
      const { fd, file } = unsealed(t);
      const { reservation } = placedFile(LENGTH, file);
      const map = () =>
        mapInto(ioas, reservation, [file], words(placed ? byPlace(IOVA, LENGTH) : byFile(IOVA, LENGTH)));
      map();
      file.write(PAGE, pattern(1));
      await edu.load(IOVA + PAGE, BYTES);

      ftruncateSync(fd, 0);
      for (let round = 0; round < 8; round++) witnesses.add(); // in freed pages, if any
      t.is((await pinnedAtRest()) - pinned, Number(LENGTH / PAGE), 'none of those of the device');
      await edu.store(IOVA + 2n * PAGE, BYTES);
      ftruncateSync(fd, Number(LENGTH));
      t.true(isSame(read(file, 0n, Number(LENGTH)), new Uint8Array(Number(LENGTH))), 'the file has new pages');
      file.write(2n * PAGE, pattern(2));
      await edu.load(IOVA + 2n * PAGE, BYTES);
      await edu.store(IOVA + 3n * PAGE, BYTES);
      await edu.load(IOVA + 3n * PAGE, BYTES);
      t.deepEqual(read(file, 2n * PAGE), pattern(2), 'which the device does not have');
      t.deepEqual(read(file, 3n * PAGE), new Uint8Array(BYTES));
      unmapFrom(ioas, IOVA, LENGTH);
      t.is(await pinnedAtRest(), pinned, 'and they are freed with the mapping');

      map();
      await edu.store(IOVA + 4n * PAGE, BYTES);
      t.deepEqual(read(file, 4n * PAGE), pattern(1), 'mapped again, it has the pages of the file');
      unmapAll(ioas);
      ftruncateSync(fd, Number(LENGTH / 2n));
      t.throws(map, { code: 'ERR_MAP_FAILED', message: placed ? /EFAULT/ : /EINVAL/ }, 'too short');
      t.is(await pinnedAtRest(), pinned);
      t.is(witnesses.changed, 0);
      reservation.close();
    },
  );
}

testWith(
  { edu: 1 },
  'iommufd: a file truncated before a device attaches prevents attaching, and nothing is pinned',
  async (t, { edu: [bdf = ''] }) => {
    const rig = new IoasRig();
    t.teardown(() => rig.close());
    const { ioas } = rig;
    const device = await rig.bind(bdf);
    const pinned = await pinnedAtRest();
    const { fd, file } = unsealed(t);
    const sound = NativeMemoryFile.create(LENGTH, 'sound', 0);
    mapInto(ioas, undefined, [sound, file], words(byFile(IOVA, LENGTH), byFile(IOVA + LENGTH, LENGTH, { which: 1 })));
    ftruncateSync(fd, Number(LENGTH - PAGE));
    await t.throwsAsync(device.attach(ioas), { code: 'ERR_DEVICE_ATTACH', message: /E(INVAL|FAULT)/ });
    t.deepEqual([ioas.mappingCount, await pinnedAtRest()], [2, pinned]);
    const edu = nativeEdu(bdf, device);
    sound.write(0n, pattern(3));
    await edu.store(IOVA, BYTES);
    t.deepEqual(read(sound, 0n), pattern(3), 'it reaches nothing');
    unmapFrom(ioas, IOVA + LENGTH, LENGTH);
    await device.attach(ioas);
    await edu.load(IOVA, BYTES);
    await edu.store(IOVA + PAGE, BYTES);
    t.deepEqual(read(sound, PAGE), pattern(3));
  },
);
