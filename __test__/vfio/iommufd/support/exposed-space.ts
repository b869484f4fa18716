/**
 * Memory of every kind in an address space of iommufd. A device copies bytes through all of it.
 */
import { NativeMemoryFile, NativePrivateMemory, NativeReservation, type NativeVfioDevice } from '#native';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../../examples/devices/edu.ts';
import { type Place, shows } from '../../support/exposed-memory.ts';
import { nativeEdu } from '../../support/native-rig.ts';
import { pattern } from '../../support/rig.ts';
import { byFile, byPlace, mapInto, unmapAll, words } from '../../support/native-calls.ts';
import { IoasRig } from './ioas-rig.ts';

/** Shared memory, mapped by host address. */
export const RAM: Place = { at: 0n, length: 0x20_0000n, iova: 0x1000_0000n };
/** Private memory, mapped by host address. */
export const PRIVATE: Place = { at: 0x40_0000n, length: 0x10_0000n, iova: 0x2000_0000n };
/** A file, mapped from offset `at`. */
export const FILE: Place = { at: 0x1_0000n, length: 0x8_0000n, iova: 0x3000_0000n };
/** A BAR of an ivshmem as a dma-buf, from offset `at` of its region. */
export const BAR: Place = { at: 0x1000n, length: 0xff_f000n, iova: 0x1_0000_0000n };
export const MAPPINGS = 4;

const FILE_LENGTH = 0x10_0000n;
const SOURCE = 0x3000n;
const SINK = 0x1f_f000n;
const BYTES = Edu.BUFFER_SIZE;

/** All handles of a caller, which can be dropped. */
export interface Handles {
  readonly reservation: NativeReservation;
  readonly ram: NativeMemoryFile;
  readonly privateMemory: NativePrivateMemory;
  readonly file: NativeMemoryFile;
  readonly barFile: NativeMemoryFile;
  readonly peer: NativeVfioDevice;
  /** The offset of BAR in the peer's file. */
  readonly barOffset: bigint;
}

export class ExposedSpace {
  readonly rig: IoasRig;
  readonly edu: Edu;
  handles: Handles | undefined;
  /** Other descriptors of the file of RAM and of the file that is mapped. */
  readonly observer: NativeMemoryFile;
  readonly fileObserver: NativeMemoryFile;
  #seed = 0;

  /** Attaches both devices. Closed when the test ends. */
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
   * Copies bytes by DMA from RAM to private memory, to the file, to the BAR, and back to RAM. Calls `meanwhile` during
   * each transfer in either direction, and then lets the device write.
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
    t.true(shows('memfd:ram', RAM.length), `${what}: RAM is mapped in this process as before`);
    t.deepEqual(read(this.observer, SINK), bytes, `${what}: the bytes arrived everywhere`);
    t.deepEqual(read(this.observer, SOURCE), bytes, what);
    const expected = pattern(78, Number(FILE_LENGTH));
    expected.set(bytes, Number(FILE.at));
    t.true(isSame(read(this.fileObserver, 0n, expected.length), expected), `${what}: and nowhere else`);
  }

  /** Sends bytes to an unmapped address, and returns whether RAM and the file are unchanged. */
  async leavesMemoryUnchanged(iova: bigint): Promise<boolean> {
    const look = (): Uint8Array[] => [
      read(this.observer, 0n, Number(RAM.length)),
      read(this.fileObserver, 0n, Number(FILE_LENGTH)),
    ];
    const before = look();
    await this.edu.store(iova, BYTES);
    return look().every((bytes, index) => isSame(bytes, before[index] ?? new Uint8Array()));
  }

  /** Closes everything in order, before the rig. */
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

/** Compares long arrays without printing them. */
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
