/**
 * Memory of every kind in an address space of iommufd, and a device that carries bytes through all of it.
 */
import { NativeMemoryFile, NativePrivateMemory, NativeReservation, type NativeVfioDevice } from '#native';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../../examples/devices/edu.ts';
import { type Place, shows } from '../../support/exposed-memory.ts';
import { nativeEdu } from '../../support/native-rig.ts';
import { pattern } from '../../support/rig.ts';
import { byFile, byPlace, mapInto, unmapAll, words } from '../../support/native-calls.ts';
import { IoasRig } from './ioas-rig.ts';

/** By its place in this process, shared memory. */
export const RAM: Place = { at: 0n, length: 0x20_0000n, iova: 0x1000_0000n };
/** By its place in this process, private memory. */
export const PRIVATE: Place = { at: 0x40_0000n, length: 0x10_0000n, iova: 0x2000_0000n };
/** By file; `at` is where in it. */
export const FILE: Place = { at: 0x1_0000n, length: 0x8_0000n, iova: 0x3000_0000n };
/** Of an ivshmem, as a dma-buf; `at` is where in its region. */
export const BAR: Place = { at: 0x1000n, length: 0xff_f000n, iova: 0x1_0000_0000n };
export const MAPPINGS = 4;

const FILE_LENGTH = 0x10_0000n;
const SOURCE = 0x3000n;
const SINK = 0x1f_f000n;
const BYTES = Edu.BUFFER_SIZE;

/** What a caller has in its hands; all of it can be dropped. */
export interface Handles {
  readonly reservation: NativeReservation;
  readonly ram: NativeMemoryFile;
  readonly privateMemory: NativePrivateMemory;
  readonly file: NativeMemoryFile;
  readonly barFile: NativeMemoryFile;
  readonly peer: NativeVfioDevice;
  /** Where BAR is in the peer's file. */
  readonly barOffset: bigint;
}

export class ExposedSpace {
  readonly rig: IoasRig;
  readonly edu: Edu;
  handles: Handles | undefined;
  /** Other descriptors of RAM's file and of the one that is mapped as such. */
  readonly observer: NativeMemoryFile;
  readonly fileObserver: NativeMemoryFile;
  #seed = 0;

  /** Both devices are attached. Closed when the test ends. */
  static async open(t: ExecutionContext, edu: string, peer: string): Promise<ExposedSpace> {
    const rig = await IoasRig.open(t, edu, peer);
    const exposed = new ExposedSpace(rig, edu);
    t.teardown(() => exposed.close());
    return exposed;
  }

  /** @param rig with an edu and an ivshmem attached, in this order */
  constructor(rig: IoasRig, edu: string) {
    this.rig = rig;
    const [engine, peer] = rig.devices as [NativeVfioDevice, NativeVfioDevice];
    this.edu = nativeEdu(edu, engine);
    const ram = NativeMemoryFile.create(RAM.length, 'ram', 0);
    const file = NativeMemoryFile.create(FILE_LENGTH, 'by-file', 0);
    this.observer = NativeMemoryFile.fromFd(ram.fd);
    this.fileObserver = NativeMemoryFile.fromFd(file.fd);
    const reservation = new NativeReservation(40);
    const privateMemory = new NativePrivateMemory(PRIVATE.length, false);
    const barFile = peer.memoryFile();
    const barOffset = (peer.regionInfo(2)?.fileOffset ?? 0n) + BAR.at;
    reservation.mapFile(RAM.at, RAM.length, ram, 0n, true, false);
    reservation.mapPrivate(PRIVATE.at, PRIVATE.length, privateMemory, 0n);
    mapInto(
      rig.ioas,
      reservation,
      [barFile, file],
      words(
        byPlace(RAM.iova, RAM.length, RAM.at),
        byPlace(PRIVATE.iova, PRIVATE.length, PRIVATE.at),
        byFile(FILE.iova, FILE.length, { which: 1, offset: FILE.at }),
        byFile(BAR.iova, BAR.length, { which: 0, offset: barOffset }),
      ),
    );
    this.handles = { reservation, ram, privateMemory, file, barFile, peer, barOffset };
  }

  /**
   * Bytes go by DMA from RAM to private memory, from there to the file, to the BAR, and back to RAM; `meanwhile` is called
   * while each of the transfers, in either direction, is under way. The device does its part of it after that.
   */
  async carry(t: ExecutionContext, what: string, meanwhile: () => void = () => {}): Promise<void> {
    const bytes = pattern(++this.#seed);
    this.observer.write(SOURCE, bytes);
    this.observer.write(SINK, new Uint8Array(BYTES));
    this.fileObserver.write(0n, pattern(78, Number(FILE_LENGTH)));
    const way = [
      RAM.iova + SOURCE,
      PRIVATE.iova + 0x8000n,
      FILE.iova,
      BAR.iova + BAR.length - 0x1000n,
      RAM.iova + SINK,
    ];
    for (const [index, from] of way.slice(0, -1).entries()) {
      await during(this.edu.load(from, BYTES), meanwhile);
      await during(this.edu.store(way[index + 1] ?? 0n, BYTES), meanwhile);
    }
    t.true(shows('memfd:ram', RAM.length), `${what}: RAM is where it was in this process`);
    t.deepEqual(read(this.observer, SINK), bytes, `${what}: the bytes went all their way`);
    t.deepEqual(read(this.observer, SOURCE), bytes, what);
    const expected = pattern(78, Number(FILE_LENGTH));
    expected.set(bytes, Number(FILE.at));
    t.true(isSame(read(this.fileObserver, 0n, expected.length), expected), `${what}: and nowhere else`);
  }

  /** Sends bytes to an address that nothing is mapped at any more; says whether RAM and the file are as they were. */
  async strikesNothing(iova: bigint): Promise<boolean> {
    const look = (): Uint8Array[] => [
      read(this.observer, 0n, Number(RAM.length)),
      read(this.fileObserver, 0n, Number(FILE_LENGTH)),
    ];
    const before = look();
    await this.edu.store(iova, BYTES);
    return look().every((bytes, index) => isSame(bytes, before[index] ?? new Uint8Array()));
  }

  /** In good order, before the rig. */
  close(): void {
    unmapAll(this.rig.ioas);
    const { handles } = this;
    this.handles = undefined;
    handles?.reservation.close();
  }
}

/** Bytes of a file. */
export function read(file: NativeMemoryFile, at: bigint, length: number = BYTES): Uint8Array {
  const bytes = new Uint8Array(length);
  file.read(at, bytes);
  return bytes;
}

/** For many bytes, which nobody wants to have printed. */
export function isSame(left: Uint8Array, right: Uint8Array): boolean {
  return Buffer.compare(left, right) === 0;
}

async function during(transfer: Promise<void>, meanwhile: () => void): Promise<void> {
  try {
    meanwhile();
  } finally {
    await transfer;
  }
}
