/**
 * Leaks with a real IOMMU: in this process, in the container and in the kernel.
 */
import { NativeMemoryFile, NativeReservation, NativeVfioContainer, NativeVfioGroup } from '#native';
import type { ExecutionContext } from 'ava';
import { readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { AddressRange } from '../../ts/index.ts';
import { type Held, held } from '../support/held.ts';
import { testWith } from './support/devices.ts';
import { byPlace, mapInto, unmapAll, unmapFrom, words } from './support/native-calls.ts';
import { openVfioFiles } from './support/open-files.ts';
import { pinnedAtRest } from './support/pins.ts';
import { repetitions } from './support/repetitions.ts';
import { peerBar, rig } from './support/rig.ts';
import { codeAndErrno } from '../support/native-error.ts';

const PAGE = 0x1000n;
const IOVA = 0x1000_0000n;
/** Two mappings for each round. */
const ROUNDS = repetitions(5000);
const MOVES = repetitions(200);
/** As for a process without VFIO: V8 maps parts of its heap, and compiles code. */
const SLACK = { mappings: 100, residentBytes: 32 << 20, objects: 300 };

function isFlat(t: ExecutionContext, before: Held, after: Held): void {
  t.log(`${JSON.stringify(before)} before, ${JSON.stringify(after)} after`);
  t.is(after.descriptors, before.descriptors);
  for (const what of ['mappings', 'residentBytes', 'objects'] as const) {
    t.true(after[what] - before[what] <= SLACK[what], `${what}: ${before[what]}, later ${after[what]}`);
  }
}

testWith(
  { any: 1 },
  `${2 * ROUNDS} IOMMU mappings, including failing ones, leave nothing behind`,
  async (t, { any: [bdf = ''] }) => {
    t.timeout(300_000);
    const group = NativeVfioGroup.open(Number(basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`))));
    const container = NativeVfioContainer.open();
    await group.attachAsync(container);
    await container.setIommuAsync();
    const reservation = new NativeReservation(40);
    const file = NativeMemoryFile.create(8n * PAGE, 'passing', 0);
    t.teardown(() => {
      group.close();
      container.close();
      reservation.close();
      file.close();
    });
    const pinnedBefore = await pinnedAtRest();

    const rounds = (count: number): void => {
      for (let round = 0; round < count; round++) {
        const at = BigInt(round % 5) * PAGE;
        reservation.mapFile(at, 4n * PAGE, file, 0n, true, false);
        const first = byPlace(IOVA, PAGE, at);
        const second = (iova: bigint): bigint[] => byPlace(iova, 3n * PAGE, at + PAGE, false);
        if (round % 10 === 0) {
          // The second overlaps the first and fails with EEXIST; then the first is unmapped.
          refused('ERR_MAP_FAILED EEXIST', () => mapInto(container, reservation, [], words(first, second(IOVA))));
        }
        mapInto(container, reservation, [], words(first, second(IOVA + 16n * PAGE)));
        if (round % 10 === 5) {
          refused('ERR_VA_IN_USE', () => reservation.unmap(at, PAGE));
          refused('ERR_UNMAP_FAILED EINVAL', () => unmapFrom(container, IOVA + 17n * PAGE, PAGE));
        }
        if (container.mappingCount !== 2) throw new Error(`${container.mappingCount} mappings instead of 2`);
        if (round % 3 === 0) unmapAll(container);
        else unmapFrom(container, IOVA, 32n * PAGE);
        reservation.unmap(at, 4n * PAGE);
      }
    };
    rounds(500);
    const [before, availableBefore] = [await held(), container.info().dmaAvail];
    const began = performance.now();
    rounds(ROUNDS);
    t.log(`${ROUNDS} rounds took ${((performance.now() - began) / 1000).toFixed(1)} s`);
    const after = await held();

    isFlat(t, before, after);
    t.is(container.mappingCount, 0);
    t.is(container.info().dmaAvail, availableBefore);
    t.is(availableBefore, 65535);
    t.is(await pinnedAtRest(), pinnedBefore, 'pages pinned');
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  `a BAR that moves ${MOVES} times and devices that open and close leave nothing behind`,
  async (t, { edu: [bdf = ''], ivshmem: [peerBdf = ''] }) => {
    t.timeout(300_000);
    const pinnedAtFirst = await pinnedAtRest();
    const { memory, manager, open } = await rig(t);
    const edu = await open(bdf);
    const pinnedBefore = await pinnedAtRest();
    const passing = async (count: number): Promise<void> => {
      const peer = await open(peerBdf);
      const bar = peerBar(peer);
      const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
      await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
      // Over its last place, further away, and beyond the addresses of the IOMMU.
      const places = [0x8000_0000n, 0x8080_0000n, 0x1_0000_0000n, 0xfee0_0000n];
      for (let move = 0; move < count; move++) await window.mapToGuest(places[move % places.length] ?? 0n);
      await window.unmapFromGuest();
      await window.remove();
      await peer.close();
    };
    await passing(40);
    const [before, filesBefore] = [await held(), openVfioFiles().length];
    for (let part = 0; part < 4; part++) await passing(MOVES / 4);
    const after = await held();
    isFlat(t, before, after);
    t.is(openVfioFiles().length, filesBefore);
    t.is(manager.inspect().containers[0]?.dmaAvailable, 65534, 'RAM alone is mapped');
    t.is(await pinnedAtRest(), pinnedBefore, 'pages pinned');
    await edu.close();
    t.is(await pinnedAtRest(), pinnedAtFirst, 'pages pinned');
  },
);

function refused(expected: string, act: () => void): void {
  try {
    act();
  } catch (error) {
    if (codeAndErrno(error) === expected) return;
    throw error;
  }
  throw new Error(`no ${expected}`);
}
