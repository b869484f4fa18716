/**
 * Calls of the native core in a wrong order. Asynchronous calls race with one another, and handles are dropped before
 * they settle.
 */
import { NativeMemoryFile, type NativeReservation, type NativeVfioContainer } from '#native';
import { setImmediate as turn } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../examples/devices/edu.ts';
import { testWith } from './support/devices.ts';
import { BAR, ExposedMemory, RAM, shows } from './support/exposed-memory.ts';
import { byPlace, mapIntoAsync, unmapAll, unmapFromAsync, words } from './support/native-calls.ts';
import { NativeRig, collectGarbage, nativeEdu } from './support/native-rig.ts';
import { openVfioFiles } from './support/open-files.ts';
import { pinnedAtLast, pinnedPages, pinnedRoughly } from './support/pins.ts';
import { type PlacedFile, placedFile } from './support/placed-file.ts';
import { pattern } from './support/rig.ts';
import { Witnesses } from './support/witnesses.ts';
import { codeAndErrno } from '../support/native-error.ts';

const IOVA = 0x4000_0000n;
const MiB = 1n << 20n;
const IN_USE = { code: 'ERR_VA_IN_USE' };

/** The kernel's count of mappings. */
function counter(container: NativeVfioContainer): () => number {
  const all = container.info().dmaAvail ?? NaN;
  return () => all - (container.info().dmaAvail ?? NaN);
}

/** A file in a reservation of its own, and the request that maps all of it. */
function placed(length: bigint): PlacedFile & { request: BigUint64Array } {
  return { ...placedFile(length), request: words(byPlace(IOVA, length)) };
}

/** Checks that a DMA write there arrives in the file. */
async function arrives(
  t: ExecutionContext,
  edu: Edu,
  file: NativeMemoryFile,
  offset: bigint,
  seed: number,
): Promise<void> {
  const bytes = pattern(seed);
  file.write(offset, bytes);
  await edu.load(IOVA + offset, bytes.length);
  file.write(offset, new Uint8Array(bytes.length));
  await edu.store(IOVA + offset, bytes.length);
  const found = new Uint8Array(bytes.length);
  file.read(offset, found);
  t.deepEqual(found, bytes);
}

testWith({ edu: 1 }, 'memory that is being pinned cannot be unmapped', async (t, { edu: [bdf = ''] }) => {
  const rig = await NativeRig.open(t, bdf);
  const { container } = rig;
  const edu = nativeEdu(bdf, rig.devices[0] as NonNullable<(typeof rig.devices)[0]>);
  const { file, reservation, request } = placed(32n * MiB);
  const witnesses = new Witnesses();
  const pinned = pinnedRoughly();
  const pinning = mapIntoAsync(container, reservation, [], request);
  request.fill(0n); // which was read when the call was made
  while (pinnedRoughly() === pinned) await turn();
  t.throws(() => reservation.unmap(0n, 0x1000n), IN_USE);
  t.throws(() => reservation.unmap(16n * MiB, 0x1000n), IN_USE);
  t.throws(() => reservation.mapFile(0n, 0x1000n, file, 0n, true, false), IN_USE);
  t.throws(() => reservation.close(), IN_USE);
  t.throws(() => container.close(), { code: 'ERR_DEVICE_IN_USE' });
  await pinning;
  witnesses.add();
  t.is(container.mappingCount, 1);
  t.throws(() => reservation.unmap(0n, 0x1000n), IN_USE);
  await arrives(t, edu, file, 31n * MiB, 1);
  t.is(witnesses.changed, 0);
  unmapAll(container);
  reservation.close();
});

testWith(
  { edu: 1 },
  "maps and unmaps that race leave the records equal to the kernel's",
  async (t, { edu: [bdf = ''] }) => {
    const rig = await NativeRig.open(t, bdf);
    const { container } = rig;
    const edu = nativeEdu(bdf, rig.devices[0] as NonNullable<(typeof rig.devices)[0]>);
    const inKernel = counter(container);
    const length = 2n * MiB;
    const { file, reservation } = placed(4n * length);
    const witnesses = new Witnesses();
    const outcomes = new Set<string>();
    for (let round = 0; round < 8; round++) {
      const calls = [0n, 1n, 2n, 3n].flatMap((part) => {
        const at = IOVA + part * length;
        const map = () => mapIntoAsync(container, reservation, [], words(byPlace(at, length, part * length)));
        const unmap = () => unmapFromAsync(container, at, length);
        const half = () => unmapFromAsync(container, at, length / 2n);
        return round % 2 === 0 ? [map(), unmap(), map(), half()] : [unmap(), map(), half(), map()];
      });
      const settled = await Promise.allSettled(calls);
      for (const outcome of settled) {
        if (outcome.status === 'rejected') outcomes.add(codeAndErrno(outcome.reason));
      }
      t.is(container.mappingCount, inKernel(), `round ${round}`);
      let mapped = 0;
      let last: bigint | undefined;
      for (const part of [0n, 1n, 2n, 3n]) {
        try {
          reservation.unmap(part * length, length);
          reservation.mapFile(part * length, length, file, part * length, true, false);
        } catch (error) {
          t.is(codeAndErrno(error), 'ERR_VA_IN_USE');
          mapped++;
          last = part * length;
        }
      }
      t.is(mapped, container.mappingCount, 'mapped memory is held, and no other');
      if (last !== undefined) await arrives(t, edu, file, last, round);
      unmapAll(container);
      witnesses.add();
    }
    t.true(outcomes.has('ERR_MAP_FAILED EEXIST') || outcomes.has('ERR_UNMAP_FAILED EINVAL'), [...outcomes].join());
    t.is(witnesses.changed, 0);
    reservation.close();
  },
);

testWith({ edu: 1 }, 'a mapping outlives a caller that does not wait for it', async (t, { edu: [bdf = ''] }) => {
  const rig = await NativeRig.open(t, bdf);
  const { container } = rig;
  const edu = nativeEdu(bdf, rig.devices[0] as NonNullable<(typeof rig.devices)[0]>);
  const witnesses = new Witnesses();
  const drop = (): [Promise<void>, NativeMemoryFile, WeakRef<NativeReservation>] => {
    const { file, reservation, request } = placed(16n * MiB);
    const observer = NativeMemoryFile.fromFd(file.fd);
    return [mapIntoAsync(container, reservation, [], request), observer, new WeakRef(reservation)];
  };
  const [pinning, observer, trace] = drop();
  await collectGarbage();
  await pinning;
  await collectGarbage();
  t.is(trace.deref(), undefined);
  t.true(shows('memfd:placed', 16n * MiB));
  for (let round = 0; round < 8; round++) witnesses.add();
  await arrives(t, edu, observer, 15n * MiB, 3);
  t.is(witnesses.changed, 0);
});

testWith(
  { edu: 1 },
  'a container that loses its group while memory is being pinned holds nothing',
  async (t, { edu: [bdf = ''] }) => {
    const rig = await NativeRig.open(t, bdf);
    const { container } = rig;
    const { reservation, request } = placed(16n * MiB);
    const pinning = [
      mapIntoAsync(container, reservation, [], request),
      mapIntoAsync(container, reservation, [], request),
    ];
    for (const device of rig.devices) device.close();
    for (const group of rig.groups) group.close();
    const outcomes = await Promise.allSettled(pinning);
    for (const outcome of outcomes) {
      if (outcome.status === 'rejected')
        t.regex(codeAndErrno(outcome.reason), /^(ERR_MAP_FAILED EEXIST|ERR_CONTAINER_EMPTY)/);
    }
    t.is(container.mappingCount, 0);
    t.is(await pinnedAtLast(), 0);
    reservation.unmap(0n, 16n * MiB);
    reservation.close();
    container.close();
  },
);

testWith({ edu: 1, ivshmem: 1 }, 'handles that are all dropped at once leave nothing open', async (t, devices) => {
  const [edu = '', peer = ''] = [devices.edu[0], devices.ivshmem[0]];
  const drop = async (): Promise<void> => {
    const exposed = await ExposedMemory.with(edu, peer);
    t.true(pinnedPages() > 0);
    await exposed.edu.store(BAR.iova, Edu.BUFFER_SIZE);
    exposed.edu.store(RAM.iova, Edu.BUFFER_SIZE).catch(() => {}); // which does not end
  };
  const witnesses = new Witnesses();
  await drop();
  for (let round = 0; round < 3; round++) await collectGarbage();
  t.deepEqual(openVfioFiles(), []);
  t.is(await pinnedAtLast(), 0);
  for (let round = 0; round < 8; round++) witnesses.add();
  const again = await ExposedMemory.open(t, edu, peer);
  await again.carry(t, 'opened again');
  t.is(witnesses.changed, 0);
});
