/**
 * Calls of the native core with iommufd in a wrong order. Asynchronous calls race with one another, and address spaces
 * close while a device attaches.
 */
import { type NativeIoas, NativeMemoryFile, type NativeReservation, type NativeVfioDevice } from '#native';
import { setImmediate as turn } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../examples/devices/edu.ts';
import { testWith } from '../support/devices.ts';
import { shows } from '../support/exposed-memory.ts';
import { collectGarbage, nativeEdu } from '../support/native-rig.ts';
import { pinnedAtRest, pinnedRoughly } from '../support/pins.ts';
import { pattern } from '../support/rig.ts';
import { Witnesses } from '../support/witnesses.ts';
import { read } from './support/exposed-space.ts';
import { byFile, byPlace, mapInto, mapIntoAsync, unmapAll, unmapFromAsync, words } from '../support/native-calls.ts';
import { IoasRig } from './support/ioas-rig.ts';
import { placedFile } from '../support/placed-file.ts';
import { codeAndErrno } from '../../support/native-error.ts';

const IOVA = 0x4000_0000n;
const PAGE = 0x1000n;
const MiB = 1n << 20n;
const IN_USE = { code: 'ERR_VA_IN_USE' };
const BYTES = Edu.BUFFER_SIZE;

/** Checks that a DMA write there arrives in the file. */
async function arrives(
  t: ExecutionContext,
  edu: Edu,
  file: NativeMemoryFile,
  iova: bigint,
  offset: bigint,
  seed: number,
): Promise<void> {
  file.write(offset, pattern(seed));
  await edu.load(iova, BYTES);
  file.write(offset, new Uint8Array(BYTES));
  await edu.store(iova, BYTES);
  t.deepEqual(read(file, offset), pattern(seed));
}

function engineOf(rig: IoasRig, bdf: string): Edu {
  return nativeEdu(bdf, rig.devices[0] as NativeVfioDevice);
}

testWith({ edu: 1 }, 'iommufd: memory that is being pinned cannot be unmapped', async (t, { edu: [bdf = ''] }) => {
  const rig = await IoasRig.open(t, bdf);
  const { ioas } = rig;
  const edu = engineOf(rig, bdf);
  const length = 32n * MiB;
  const { file, reservation } = placedFile(length);
  const witnesses = new Witnesses();
  const requests = words(byPlace(IOVA, length), byFile(IOVA + length, length));
  const pinned = pinnedRoughly();
  const pinning = mapIntoAsync(ioas, reservation, [file], requests);
  requests.fill(0n); // which was read when the call was made
  const observer = NativeMemoryFile.fromFd(file.fd);
  file.close();
  while (pinnedRoughly() === pinned) await turn();
  t.throws(() => reservation.unmap(0n, PAGE), IN_USE);
  t.throws(() => reservation.unmap(16n * MiB, PAGE), IN_USE);
  t.throws(() => reservation.mapFile(0n, PAGE, observer, 0n, true, false), IN_USE);
  t.throws(() => reservation.close(), IN_USE);
  await pinning;
  witnesses.add();
  t.is(ioas.mappingCount, 2);
  t.throws(() => reservation.unmap(0n, PAGE), IN_USE);
  await arrives(t, edu, observer, IOVA + 31n * MiB, 31n * MiB, 1);
  await arrives(t, edu, observer, IOVA + 63n * MiB, 31n * MiB, 2);
  t.is(witnesses.changed, 0);
  unmapAll(ioas);
  reservation.close();
});

testWith(
  { edu: 1 },
  "iommufd: maps and unmaps that race leave the records equal to the kernel's",
  async (t, { edu: [bdf = ''] }) => {
    const rig = await IoasRig.open(t, bdf);
    const { ioas } = rig;
    const edu = engineOf(rig, bdf);
    const length = 2n * MiB;
    const parts = [0n, 1n, 2n, 3n];
    const { file, reservation } = placedFile(4n * length);
    const pinned = await pinnedAtRest();
    const witnesses = new Witnesses();
    const outcomes = new Set<string>();
    for (let round = 0; round < 8; round++) {
      const calls = parts.flatMap((part) => {
        const at = IOVA + part * length;
        const map = () => mapIntoAsync(ioas, reservation, [], words(byPlace(at, length, part * length)));
        const other = () => mapIntoAsync(ioas, undefined, [file], words(byFile(at, length, { offset: part * length })));
        const unmap = () => unmapFromAsync(ioas, at, length);
        const half = () => unmapFromAsync(ioas, at, length / 2n);
        return round % 2 === 0 ? [map(), unmap(), other(), half()] : [unmap(), other(), half(), map()];
      });
      for (const outcome of await Promise.allSettled(calls)) {
        if (outcome.status === 'rejected') outcomes.add(codeAndErrno(outcome.reason));
      }
      t.is((await pinnedAtRest()) - pinned, ioas.mappingCount * Number(length / PAGE), `round ${round}`);
      const held = parts.filter((part) => !movable(reservation, file, part * length, length));
      t.true(held.length <= ioas.mappingCount);
      // The kernel and the records agree about each mapping: a second mapping of the range is rejected if there is one.
      const mapped = parts.filter((part) =>
        refusesMap(() => mapInto(ioas, undefined, [file], words(byFile(IOVA + part * length, length)))),
      );
      for (const part of held) t.true(mapped.includes(part), 'held memory is mapped');
      const [last] = mapped.slice(-1);
      if (last !== undefined) await arrives(t, edu, file, IOVA + last * length, last * length, round);
      unmapAll(ioas);
      t.is(await pinnedAtRest(), pinned);
      t.true(
        parts.every((part) => movable(reservation, file, part * length, length)),
        'nothing is held then',
      );
      witnesses.add();
    }
    t.true(outcomes.has('ERR_MAP_FAILED EEXIST') || outcomes.has('ERR_UNMAP_FAILED'), [...outcomes].join());
    t.is(witnesses.changed, 0);
    reservation.close();
  },
);

testWith(
  { edu: 1 },
  'iommufd: a device that attaches and detaches while memory is mapped reaches exactly the recorded mappings',
  async (t, { edu: [bdf = ''] }) => {
    const rig = new IoasRig();
    t.teardown(() => rig.close());
    const { ioas } = rig;
    const device = await rig.bind(bdf);
    const edu = nativeEdu(bdf, device);
    const length = 2n * MiB;
    const { file, reservation } = placedFile(length);
    const pinned = await pinnedAtRest();
    const witnesses = new Witnesses();
    for (let round = 0; round < 8; round++) {
      const calls = [
        () => device.attach(ioas),
        () => mapIntoAsync(ioas, reservation, [], words(byPlace(IOVA, length))),
        () => mapIntoAsync(ioas, undefined, [file], words(byFile(IOVA + length, length))),
        () => device.detach(),
        () => unmapFromAsync(ioas, IOVA, length),
        () => device.attach(ioas),
      ];
      const turned = [...calls.slice(round % calls.length), ...calls.slice(0, round % calls.length)];
      for (const outcome of await Promise.allSettled(turned.map((call) => call()))) {
        if (outcome.status === 'rejected')
          t.regex(codeAndErrno(outcome.reason), /^ERR_DEVICE_IN_USE/, `round ${round}`);
      }
      const held = (await pinnedAtRest()) - pinned;
      const wasAttached = await refusesDevice(device, ioas);
      const expected = wasAttached ? ioas.mappingCount * Number(length / PAGE) : 0;
      t.is(held, expected, `round ${round}: pinned for the attached device`);
      await arrives(t, edu, file, IOVA + length + 0x5000n, 0x5000n, round);
      await device.detach();
      t.is(await pinnedAtRest(), pinned, `round ${round}: nothing without a device`);
      unmapAll(ioas);
      witnesses.add();
    }
    t.is(witnesses.changed, 0);
    reservation.close();
  },
);

testWith(
  { edu: 1 },
  'iommufd: an address space that closes while a device attaches does not leave it attached to another',
  async (t, { edu: [bdf = ''] }) => {
    const rig = new IoasRig();
    t.teardown(() => rig.close());
    const device = await rig.bind(bdf);
    const edu = nativeEdu(bdf, device);
    const secret = NativeMemoryFile.create(PAGE, 'not for it', 0);
    secret.write(0n, pattern(7));
    const seen = { closed: 0, attached: 0 };
    for (let round = 0; round < 40; round++) {
      const meant = rig.iommufd.newIoas();
      const attaching = device.attach(meant).then(
        () => true,
        (error: unknown) => codeAndErrno(error) !== 'ERR_CLOSED' && Promise.reject(error),
      );
      // After a pause: the call must be in progress, and it is short.
      for (const until = performance.now() + (round % 10) * 0.1; performance.now() < until;);
      const closed = closes(meant);
      const next = rig.iommufd.newIoas(); // to which the kernel gives the free number
      mapInto(next, undefined, [secret], words(byFile(IOVA, PAGE)));
      const attached = await attaching;
      t.false(closed && attached, `round ${round}: attached to a closed space`);
      seen[attached ? 'attached' : 'closed']++;
      if (round % 10 === 0) {
        await edu.store(IOVA, BYTES);
        t.deepEqual(read(secret, 0n), pattern(7));
      }
      next.close(); // rejected by the kernel if the device is attached there
      await device.detach();
      meant.close();
    }
    t.log(seen);
  },
);

testWith(
  { edu: 1 },
  'iommufd: a mapping outlives a caller that does not wait for it',
  async (t, { edu: [bdf = ''] }) => {
    const rig = await IoasRig.open(t, bdf);
    const edu = engineOf(rig, bdf);
    const witnesses = new Witnesses();
    const length = 16n * MiB;
    const drop = (): [Promise<void>, NativeMemoryFile, WeakRef<NativeReservation>] => {
      const { file, reservation } = placedFile(length);
      const observer = NativeMemoryFile.fromFd(file.fd);
      const requests = words(byPlace(IOVA, length), byFile(IOVA + length, length));
      return [mapIntoAsync(rig.ioas, reservation, [file], requests), observer, new WeakRef(reservation)];
    };
    const [pinning, observer, trace] = drop();
    await collectGarbage();
    await pinning;
    await collectGarbage();
    t.is(trace.deref(), undefined);
    t.true(shows('memfd:placed', length));
    for (let round = 0; round < 8; round++) witnesses.add();
    await arrives(t, edu, observer, IOVA + length - PAGE, length - PAGE, 3);
    await arrives(t, edu, observer, IOVA + 2n * length - PAGE, length - PAGE, 4);
    t.is(witnesses.changed, 0);
  },
);

testWith(
  { edu: 1 },
  'iommufd: an address space that loses its device while memory is pinned keeps its records, unpinned',
  async (t, { edu: [bdf = ''] }) => {
    const rig = await IoasRig.open(t, bdf);
    const { ioas } = rig;
    const pinned = await pinnedAtRest();
    const { file, reservation } = placedFile(16n * MiB);
    const pinning = [
      mapIntoAsync(ioas, reservation, [], words(byPlace(IOVA, 16n * MiB))),
      mapIntoAsync(ioas, undefined, [file], words(byFile(IOVA, 16n * MiB))),
    ];
    for (const device of rig.devices) device.close();
    const outcomes = await Promise.allSettled(pinning);
    t.deepEqual(outcomes.map(({ status }) => status).sort(), ['fulfilled', 'rejected'], "one takes the other's place");
    t.is(ioas.mappingCount, 1);
    t.is(await pinnedAtRest(), pinned);
    ioas.close();
    reservation.close();
  },
);

/** Whether memory can be removed from a reservation; it is placed again afterwards. */
function movable(reservation: NativeReservation, file: NativeMemoryFile, at: bigint, length: bigint): boolean {
  try {
    reservation.unmap(at, length);
  } catch (error) {
    if (codeAndErrno(error) === 'ERR_VA_IN_USE') return false;
    throw error;
  }
  reservation.mapFile(at, length, file, at, true, false);
  return true;
}

/** Attaches a device, or returns that it is attached already. */
async function refusesDevice(device: NativeVfioDevice, ioas: NativeIoas): Promise<boolean> {
  try {
    await device.attach(ioas);
    return false;
  } catch (error) {
    if (codeAndErrno(error).startsWith('ERR_DEVICE_IN_USE')) return true;
    throw error;
  }
}

function refusesMap(map: () => void): boolean {
  try {
    map();
    return false;
  } catch (error) {
    if (codeAndErrno(error) === 'ERR_MAP_FAILED EEXIST') return true;
    throw error;
  }
}

function closes(space: { close(): void }): boolean {
  try {
    space.close();
    return true;
  } catch (error) {
    if (codeAndErrno(error).startsWith('ERR_DEVICE_IN_USE')) return false;
    throw error;
  }
}
