/**
 * Leaks in an address space of iommufd, in this process and in the kernel.
 */
import { NativeMemoryFile, NativePrivateMemory, NativeReservation } from '#native';
import type { ExecutionContext } from 'ava';
import { type Held, held } from '../../support/held.ts';
import { testWith } from '../support/devices.ts';
import { openVfioFiles } from '../support/open-files.ts';
import { pinnedAtRest } from '../support/pins.ts';
import { byFile, byPlace, mapInto, unmapAll, unmapFrom, words } from '../support/native-calls.ts';
import { IoasRig } from './support/ioas-rig.ts';
import { codeAndErrno } from '../../support/native-error.ts';

const PAGE = 0x1000n;
const IOVA = 0x1000_0000n;
const BAR = 0x1_0000_0000n;
/** Four mappings for each round: two by host address, one by file, one of a BAR. */
const ROUNDS = 2500;
const COMINGS = 100;
/** As for a process without VFIO: V8 maps parts of its heap, and compiles code. */
const SLACK = { mappings: 100, residentBytes: 32 << 20, objects: 300 };

function isFlat(t: ExecutionContext, before: Held, after: Held): void {
  t.log(`${JSON.stringify(before)} before, ${JSON.stringify(after)} after`);
  t.is(after.descriptors, before.descriptors);
  for (const what of ['mappings', 'residentBytes', 'objects'] as const) {
    t.true(after[what] - before[what] <= SLACK[what], `${what}: ${before[what]}, later ${after[what]}`);
  }
}

function refused(expected: string, act: () => void): void {
  try {
    act();
  } catch (error) {
    if (codeAndErrno(error) === expected) return;
    throw error;
  }
  throw new Error(`no ${expected}`);
}

testWith(
  { edu: 1, ivshmem: 1 },
  'iommufd: ten thousand mappings, including failing ones, leave nothing behind',
  async (t, { edu: [bdf = ''], ivshmem: [peerBdf = ''] }) => {
    t.timeout(300_000);
    const rig = await IoasRig.open(t, bdf);
    const { ioas } = rig;
    const peer = await rig.bind(peerBdf);
    const reservation = new NativeReservation(40);
    const file = NativeMemoryFile.create(8n * PAGE, 'passing', 0);
    const memory = new NativePrivateMemory(4n * PAGE, false);
    const bar = peer.memoryFile();
    const { fileOffset = 0n } = peer.regionInfo(2) ?? {};
    t.teardown(() => reservation.close());
    const pinned = await pinnedAtRest();

    const rounds = (count: number): void => {
      for (let round = 0; round < count; round++) {
        const at = BigInt(round % 5) * PAGE;
        reservation.mapFile(at, 4n * PAGE, file, 0n, true, false);
        reservation.mapPrivate(16n * PAGE + at, 4n * PAGE, memory, 0n);
        const requests = [
          byPlace(IOVA, PAGE, at),
          byPlace(IOVA + 16n * PAGE, 4n * PAGE, 16n * PAGE + at, false),
          byFile(IOVA + 24n * PAGE, 4n * PAGE, { offset: at }),
          byFile(BAR, PAGE, { which: 1, offset: fileOffset + at }),
        ];
        if (round % 10 === 0) {
          // The last overlaps the first and fails with EEXIST; then all are unmapped.
          const wrong = words(...requests, byFile(IOVA, PAGE));
          refused('ERR_MAP_FAILED EEXIST', () => mapInto(ioas, reservation, [file, bar], wrong));
        }
        mapInto(ioas, reservation, [file, bar], words(...requests));
        if (round % 10 === 5) {
          refused('ERR_VA_IN_USE', () => reservation.unmap(at, PAGE));
          refused('ERR_UNMAP_FAILED', () => unmapFrom(ioas, IOVA, 25n * PAGE));
          refused('ERR_DEVICE_IN_USE', () => peer.close());
        }
        if (ioas.mappingCount !== 4) throw new Error(`${ioas.mappingCount} mappings instead of 4`);
        if (round % 3 === 0) unmapAll(ioas);
        else unmapFrom(ioas, IOVA, BAR + PAGE - IOVA);
        reservation.unmap(0n, 32n * PAGE);
      }
    };
    rounds(250);
    const before = await held();
    const files = openVfioFiles();
    const began = performance.now();
    rounds(ROUNDS);
    t.log(`${ROUNDS} rounds took ${((performance.now() - began) / 1000).toFixed(1)} s`);
    isFlat(t, before, await held());
    t.is(ioas.mappingCount, 0);
    t.deepEqual(openVfioFiles(), files, 'one dma-buf among them');
    t.is(await pinnedAtRest(), pinned, 'pages pinned');
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'iommufd: address spaces, devices and iommufds that open and close leave nothing behind',
  async (t, { edu: [bdf = ''], ivshmem: [peerBdf = ''] }) => {
    t.timeout(300_000);
    const file = NativeMemoryFile.create(16n * PAGE, 'passing', 0);
    const pinned = await pinnedAtRest();
    const passing = async (count: number): Promise<void> => {
      for (let round = 0; round < count; round++) {
        const rig = new IoasRig();
        await rig.join(bdf);
        const peer = await rig.join(peerBdf);
        const { fileOffset = 0n } = peer.regionInfo(2) ?? {};
        const requests = words(byFile(IOVA, 16n * PAGE), byFile(BAR, PAGE, { which: 1, offset: fileOffset }));
        mapInto(rig.ioas, undefined, [file, peer.memoryFile()], requests);
        rig.close();
      }
    };
    await passing(10);
    const before = await held();
    await passing(COMINGS);
    isFlat(t, before, await held());
    t.deepEqual(openVfioFiles(), []);
    t.is(await pinnedAtRest(), pinned);
  },
);
