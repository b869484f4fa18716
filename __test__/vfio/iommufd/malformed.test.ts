/**
 * Malformed requests to an address space, alone and among good ones. The native core or the kernel rejects them, and
 * nothing is mapped.
 */
import { type NativeIoas, NativeMemoryFile, NativeReservation, type NativeVfioDevice } from '#native';
import { closeSync, openSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../examples/devices/edu.ts';
import { testWith } from '../support/devices.ts';
import { nativeEdu } from '../support/native-rig.ts';
import { pinnedAtRest } from '../support/pins.ts';
import { pattern } from '../support/rig.ts';
import { Witnesses } from '../support/witnesses.ts';
import { type RejectedCall, assertRejected } from '../support/rejected-calls.ts';
import { read } from './support/exposed-space.ts';
import { byFile, byPlace, mapInto, unmapAll, unmapFrom, words } from '../support/native-calls.ts';
import { IoasRig } from './support/ioas-rig.ts';
import { placedFile } from '../support/placed-file.ts';

const PAGE = 0x1000n;
const U64_MAX = (1n << 64n) - 1n;
/** Mapped, with memory of its own. */
const HOME = 0x1000_0000n;
/** An unmapped address. */
const FREE = 0x2000_0000n;
const LENGTH = 16n * PAGE;
/** The window for interrupts. */
const MSI_WINDOW = 0xfee0_0000n;
/** In the flags of a request: the next file of the call. */
const NEXT_FILE = 1n << 32n;
const CONFIG = 7;
const COMMAND = 4n;
const MEMORY = 0x2;

interface Scene {
  readonly ioas: NativeIoas;
  readonly reservation: NativeReservation;
  /** LENGTH bytes at the start of the reservation. */
  readonly file: NativeMemoryFile;
}

/** A request, or words that are not one; and its files, if not the good one. */
type Malformed = readonly [what: string, code: string, request: readonly bigint[], files?: readonly NativeMemoryFile[]];

/** Calls each request alone, and as the second and the last of three whose others are good. */
async function refuseAll(t: ExecutionContext, { ioas, reservation, file }: Scene, all: readonly Malformed[]) {
  const [before, pinned] = [ioas.mappingCount, await pinnedAtRest()];
  const good = (place: bigint) => byFile(FREE + place * 0x100_0000n, LENGTH);
  const calls = all.flatMap(([what, code, request, files = []]): RejectedCall[] => {
    const call = (...requests: readonly (readonly bigint[])[]) => {
      // The good requests use the first file, the malformed ones the next files.
      const shifted = requests.map((one) => (one === request && files.length > 0 ? toNext(one) : one));
      return () => mapInto(ioas, reservation, [file, ...files], words(...shifted));
    };
    return [
      [what, code, call(request)],
      [`${what}, second of three`, code, call(good(1n), request, good(2n))],
      [`${what}, last of three`, code, call(good(1n), good(2n), request)],
    ];
  });
  for (const rejected of calls) {
    assertRejected(t, [rejected]);
    t.is(ioas.mappingCount, before, rejected[0]);
  }
  t.is(await pinnedAtRest(), pinned);
  // The kernel could map all of it.
  mapInto(ioas, undefined, [file], words(good(1n), good(2n)));
  for (const place of [1n, 2n]) unmapFrom(ioas, FREE + place * 0x100_0000n, LENGTH);
}

function toNext(request: readonly bigint[]): bigint[] {
  return request.map((word, index) => (index === 2 ? word + NEXT_FILE : word));
}

async function scene(t: ExecutionContext, rig: IoasRig): Promise<Scene> {
  const { file, reservation } = placedFile(LENGTH);
  t.teardown(() => {
    unmapAll(rig.ioas);
    reservation.close();
  });
  mapInto(rig.ioas, undefined, [file], words(byFile(HOME, LENGTH)));
  return { ioas: rig.ioas, reservation, file };
}

testWith({ edu: 1 }, 'malformed requests are rejected and map nothing', async (t, { edu: [bdf = ''] }) => {
  const rig = await IoasRig.open(t, bdf);
  const edu = nativeEdu(bdf, rig.devices[0] as NativeVfioDevice);
  const all = await scene(t, rig);
  const { ioas, reservation, file } = all;
  const witnesses = new Witnesses();
  const pages = (offset: bigint, length: bigint = PAGE): bigint[] => byFile(FREE, length, { offset });
  const flags = (value: bigint): bigint[] => [FREE, PAGE, value, 0n];
  const place = (offset: bigint, length: bigint): bigint[] => byPlace(FREE, length, offset);
  const invalid = 'ERR_INVALID_ARGUMENT';
  await refuseAll(t, all, [
    ['a word too few', invalid, byFile(FREE, PAGE).slice(1)],
    ['a word too many', invalid, [...byFile(FREE, PAGE), 0n]],
    ['a third flag', invalid, flags(7n)],
    ['the highest flag', invalid, flags((1n << 31n) | 3n)],
    ['a missing file', invalid, flags(NEXT_FILE | 3n)],
    ['a file number with its highest bit set', invalid, flags((1n << 63n) | 3n)],
    ['the highest file number', invalid, flags((0xffff_ffffn << 32n) | 3n)],
    ['a file number for memory of the reservation', invalid, flags(NEXT_FILE | 1n)],
    ['a range that is not mapped', 'ERR_VA_NOT_MAPPED', place(LENGTH, PAGE)],
    ['a range whose end is not mapped', 'ERR_VA_NOT_MAPPED', place(0n, LENGTH + PAGE)],
    ['beyond the reservation', 'ERR_OUT_OF_RANGE', place(reservation.length, PAGE)],
    ['across the end of the reservation', 'ERR_OUT_OF_RANGE', place(reservation.length - PAGE, 2n * PAGE)],
    ['past the highest offset in it', 'ERR_OUT_OF_RANGE', place(U64_MAX - PAGE + 1n, 2n * PAGE)],
    ['the largest length, of the reservation', 'ERR_OUT_OF_RANGE', place(0n, U64_MAX)],
    ['an empty range of the reservation', 'ERR_EMPTY_RANGE', place(0n, 0n)],
    ['an unaligned offset in the reservation', 'ERR_UNALIGNED', place(1n, PAGE)],
    ['an empty range of a file', 'ERR_EMPTY_RANGE', pages(0n, 0n)],
    ['past the highest address', 'ERR_OUT_OF_RANGE', byFile(U64_MAX - PAGE + 1n, 2n * PAGE)],
    ['the largest length, of a file', 'ERR_MAP_FAILED', byFile(0n, U64_MAX)],
    ['an unaligned address', 'ERR_MAP_FAILED EINVAL', byFile(FREE + 1n, PAGE)],
    ['less than a page', 'ERR_MAP_FAILED EINVAL', byFile(FREE, 1n)],
    ['a page and a byte', 'ERR_MAP_FAILED EINVAL', byFile(FREE, PAGE + 1n)],
    ['past the end of the file', 'ERR_MAP_FAILED EINVAL', pages(LENGTH)],
    ['across the end of the file', 'ERR_MAP_FAILED EINVAL', pages(LENGTH - PAGE, 2n * PAGE)],
    ['past the highest offset', 'ERR_MAP_FAILED', pages(U64_MAX - PAGE + 1n, 2n * PAGE)],
    ['the last page of offsets', 'ERR_MAP_FAILED', pages(U64_MAX - PAGE + 1n)],
    ['an unaligned offset', 'ERR_MAP_FAILED EINVAL', pages(1n)],
    ['over an existing mapping', 'ERR_MAP_FAILED EEXIST', byFile(HOME, PAGE)],
    ['over the end of an existing mapping', 'ERR_MAP_FAILED EEXIST', byFile(HOME + LENGTH - PAGE, LENGTH)],
    ['the interrupt window', 'ERR_MAP_FAILED EINVAL', byFile(MSI_WINDOW, PAGE)],
    ['across the start of the interrupt window', 'ERR_MAP_FAILED EINVAL', byFile(MSI_WINDOW - PAGE, 2n * PAGE)],
    ['beyond the address width of the IOMMU', 'ERR_MAP_FAILED EINVAL', byFile(1n << 60n, PAGE)],
  ]);
  const without = [['memory without a reservation', invalid, byPlace(FREE, LENGTH)]] as const;
  await refuseAll(t, { ...all, reservation: undefined as never }, without);
  const away = new NativeReservation(30);
  away.close();
  const ofClosed = [['memory of a closed reservation', 'ERR_CLOSED', byPlace(FREE, LENGTH)]] as const;
  await refuseAll(t, { ...all, reservation: away }, ofClosed);
  mapInto(ioas, reservation, [], words(byPlace(FREE, PAGE, LENGTH - PAGE)));
  unmapFrom(ioas, FREE, PAGE);

  const toRead = flags(2n);
  const closed = NativeMemoryFile.fromFd(file.fd);
  closed.close();
  await refuseAll(t, all, [
    ['a closed file', 'ERR_CLOSED', byFile(FREE, PAGE), [closed]],
    ['a file that is not memory', 'ERR_MAP_FAILED EINVAL', toRead, [byPath('/dev/null')]],
    ['a file on a disk', 'ERR_MAP_FAILED EINVAL', toRead, [byPath(process.execPath)]],
    ['a read-only file, for writing', 'ERR_MEMORY_FAULT', byFile(FREE, PAGE), [byPath(process.execPath)]],
  ]);
  mapInto(ioas, reservation, [], new BigUint64Array());
  t.is(ioas.mappingCount, 1, 'an empty batch has no effect');
  for (const [what, code, length, pageSize] of [
    ['one bit for each byte of the largest length', 'ERR_OUT_OF_RANGE', 1n << 60n, 1n],
    ['one bit for each page of the largest length', 'ERR_OUT_OF_RANGE', 1n << 60n, PAGE],
    ['bits for pages of 0 bytes', invalid, PAGE, 0n],
  ] as const) {
    await t.throwsAsync(ioas.dirtyPages(0n, length, pageSize), { code }, what);
  }

  file.write(0n, pattern(1));
  await edu.load(HOME, Edu.BUFFER_SIZE);
  await edu.store(FREE, Edu.BUFFER_SIZE);
  t.deepEqual(read(file, PAGE), new Uint8Array(Edu.BUFFER_SIZE));
  await edu.store(HOME + PAGE, Edu.BUFFER_SIZE);
  t.deepEqual(read(file, PAGE), pattern(1), 'the earlier mapping is still there');
  t.is(witnesses.changed, 0);
});

testWith(
  { edu: 1, ivshmem: 1 },
  'only whole pages of a BAR that decodes are mapped',
  async (t, { edu: [bdf = ''], ivshmem: [peerBdf = ''] }) => {
    const rig = await IoasRig.open(t, bdf);
    const peer = await rig.bind(peerBdf);
    const all = await scene(t, rig);
    const device = peer.memoryFile();
    const region = (index: number) => peer.regionInfo(index) ?? { length: 0n, fileOffset: BigInt(index) << 40n };
    const [registers, bar, config] = [region(0), region(2), region(CONFIG)];
    t.true(registers.length < PAGE, 'its BAR 0 has less than a page');
    const of = (offset: bigint, length: bigint = PAGE): [bigint[], NativeMemoryFile[]] => [
      byFile(FREE, length, { offset }),
      [device],
    ];
    const outside = 'ERR_OUT_OF_RANGE';
    await refuseAll(t, all, [
      ['past the end of a BAR', 'ERR_NO_SUCH_REGION', ...of(bar.fileOffset + bar.length)],
      ['across the end of a BAR', outside, ...of(bar.fileOffset + bar.length - PAGE, 2n * PAGE)],
      ['a BAR and more', outside, ...of(bar.fileOffset, bar.length + PAGE)],
      ['a BAR of less than a page', outside, ...of(registers.fileOffset)],
      ['all of a BAR of less than a page', outside, ...of(registers.fileOffset, registers.length)],
      ['a missing BAR', 'ERR_NO_SUCH_REGION', ...of(region(1).fileOffset)],
      ['config space', outside, ...of(config.fileOffset)],
      ['from BAR 0 to BAR 2', outside, ...of(registers.fileOffset, bar.fileOffset)],
      ['before any region', 'ERR_NO_SUCH_REGION', ...of(registers.fileOffset + PAGE)],
      ['past the highest offset', outside, ...of(U64_MAX - PAGE + 1n, 2n * PAGE)],
      ['an unaligned offset', 'ERR_MAP_FAILED EINVAL', ...of(bar.fileOffset + 1n)],
      ['less than a page', 'ERR_MAP_FAILED EINVAL', ...of(bar.fileOffset, 1n)],
    ]);
    mapInto(all.ioas, undefined, [device], words(of(bar.fileOffset)[0]));
    unmapFrom(all.ioas, FREE, PAGE);

    const command = new Uint8Array(2);
    peer.readRegion(CONFIG, COMMAND, command);
    const [low = 0, high = 0] = command;
    peer.writeRegion(CONFIG, COMMAND, Uint8Array.of(low & ~MEMORY, high));
    await refuseAll(t, all, [['a BAR without decode', 'ERR_MAP_FAILED ENODEV', ...of(bar.fileOffset)]]);
    peer.writeRegion(CONFIG, COMMAND, Uint8Array.of(low | MEMORY, high));
    peer.close(); // no rejected request prevents it
    await refuseAll(t, all, [['a closed device', 'ERR_CLOSED', ...of(bar.fileOffset)]]);
  },
);

testWith({ edu: 1 }, 'a closed address space rejects mappings', async (t, { edu: [bdf = ''] }) => {
  const rig = await IoasRig.open(t, bdf);
  const { file, reservation } = placedFile(LENGTH);
  const gone = rig.iommufd.newIoas();
  mapInto(gone, reservation, [], words(byPlace(HOME, LENGTH)));
  gone.close();
  gone.close();
  reservation.close(); // nothing holds it any more
  assertRejected(t, [
    ['map', 'ERR_CLOSED', () => mapInto(gone, undefined, [file], words(byFile(HOME, LENGTH)))],
    ['unmap', 'ERR_CLOSED', () => unmapFrom(gone, HOME, LENGTH)],
    ['ask', 'ERR_CLOSED', () => gone.info()],
  ]);
  await t.throwsAsync(gone.setDirtyTracking(true), { code: 'ERR_CLOSED' });
  await t.throwsAsync(gone.dirtyPages(HOME, LENGTH, PAGE), { code: 'ERR_CLOSED' });
  const [device] = rig.devices as [NativeVfioDevice];
  await device.detach();
  await device.detach();
  await t.throwsAsync(device.attach(gone), { code: 'ERR_CLOSED' });
  t.is(gone.mappingCount, 0);
  device.close();
  await t.throwsAsync(device.attach(rig.ioas), { code: 'ERR_CLOSED' });
  await t.throwsAsync(device.detach(), { code: 'ERR_CLOSED' });
});

function byPath(path: string): NativeMemoryFile {
  const fd = openSync(path, 'r');
  try {
    return NativeMemoryFile.fromFd(fd);
  } finally {
    closeSync(fd);
  }
}
