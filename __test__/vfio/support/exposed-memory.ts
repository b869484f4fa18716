/**
 * Memory of every kind under live IOMMU mappings, and a device that copies bytes through all of it.
 */
import { NativeMemoryFile, NativePrivateMemory, NativeReservation, type NativeVfioDevice } from '#native';
import { readFileSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../examples/devices/edu.ts';
import { byPlace, mapInto, unmapAll, words } from './native-calls.ts';
import { NativeRig, nativeEdu } from './native-rig.ts';
import { pattern } from './rig.ts';

/** A mapping: its offset in the reservation, and its address for devices. */
export interface Place {
  readonly at: bigint;
  readonly length: bigint;
  readonly iova: bigint;
}

export const RAM: Place = { at: 0n, length: 0x20_0000n, iova: 0x1000_0000n };
export const PRIVATE: Place = { at: 0x40_0000n, length: 0x10_0000n, iova: 0x2000_0000n };
/** Of an ivshmem. */
export const BAR: Place = { at: 0x1000_0000n, length: 0x100_0000n, iova: 0x1_0000_0000n };

const SOURCE = 0x3000n;
const SINK = 0x1f_f000n;
const BYTES = Edu.BUFFER_SIZE;

/** All handles of a caller, which can be dropped. */
export interface Handles {
  readonly reservation: NativeReservation;
  readonly file: NativeMemoryFile;
  readonly privateMemory: NativePrivateMemory;
  readonly barFile: NativeMemoryFile;
  readonly peer: NativeVfioDevice;
  readonly barOffset: bigint;
}

export class ExposedMemory {
  readonly rig: NativeRig;
  readonly edu: Edu;
  handles: Handles | undefined;
  /** Another descriptor of RAM's file. */
  readonly observer: NativeMemoryFile;
  #seed = 0;

  /** Closed when the test ends. */
  static async open(t: ExecutionContext, edu: string, peer: string): Promise<ExposedMemory> {
    const exposed = await ExposedMemory.with(edu, peer);
    t.teardown(() => exposed.close());
    return exposed;
  }

  /** The edu's group is the container's first. */
  static async with(edu: string, peer: string): Promise<ExposedMemory> {
    return new ExposedMemory(await NativeRig.with(edu, peer), edu);
  }

  private constructor(rig: NativeRig, edu: string) {
    this.rig = rig;
    const [engine, other] = this.rig.devices as [NativeVfioDevice, NativeVfioDevice];
    this.edu = nativeEdu(edu, engine);
    const file = NativeMemoryFile.create(RAM.length, 'ram', 0);
    this.observer = NativeMemoryFile.fromFd(file.fd);
    const reservation = new NativeReservation(40);
    const privateMemory = new NativePrivateMemory(PRIVATE.length, false);
    const barFile = other.memoryFile();
    const barOffset = other.regionInfo(2)?.fileOffset ?? 0n;
    reservation.mapFile(RAM.at, RAM.length, file, 0n, true, false);
    reservation.mapPrivate(PRIVATE.at, PRIVATE.length, privateMemory, 0n);
    reservation.mapFile(BAR.at, BAR.length, barFile, barOffset, true, false);
    const requests = [RAM, PRIVATE, BAR].map(({ at, length, iova }) => byPlace(iova, length, at));
    mapInto(this.rig.container, reservation, [], words(...requests));
    this.handles = { reservation, file, privateMemory, barFile, peer: other, barOffset };
  }

  /**
   * Copies bytes by DMA from RAM to private memory, to the BAR, and back to RAM. Calls `meanwhile` during each transfer
   * in either direction, and then lets the device write.
   */
  async carry(t: ExecutionContext, what: string, meanwhile: () => void = () => {}): Promise<void> {
    const bytes = pattern(++this.#seed);
    this.observer.write(SOURCE, bytes);
    this.observer.write(SINK, new Uint8Array(BYTES));
    const way = [RAM.iova + SOURCE, PRIVATE.iova + 0x8000n, BAR.iova + BAR.length - 0x1000n, RAM.iova + SINK];
    for (const [index, from] of way.slice(0, -1).entries()) {
      await during(this.edu.load(from, BYTES), meanwhile);
      await during(this.edu.store(way[index + 1] ?? 0n, BYTES), meanwhile);
    }
    t.true(shows('memfd:ram', RAM.length), `${what}: RAM is mapped in this process as before`);
    t.true(shows('vfio-device', BAR.length), `${what}: so is the BAR`);
    t.deepEqual(this.#read(SINK), bytes, `${what}: the bytes arrived everywhere`);
    t.deepEqual(this.#read(SOURCE), bytes, what);
  }

  /** Sends bytes to an unmapped address, and returns whether RAM is unchanged. */
  async leavesMemoryUnchanged(iova: bigint): Promise<boolean> {
    const before = new Uint8Array(Number(RAM.length));
    this.observer.read(0n, before);
    await this.edu.store(iova, BYTES);
    const after = new Uint8Array(Number(RAM.length));
    this.observer.read(0n, after);
    return Buffer.compare(before, after) === 0;
  }

  /** Closes everything in order. */
  close(): void {
    unmapAll(this.rig.container);
    const { handles } = this;
    this.handles = undefined;
    handles?.reservation.close();
    this.rig.close();
  }

  #read(at: bigint): Uint8Array {
    const bytes = new Uint8Array(BYTES);
    this.observer.read(at, bytes);
    return bytes;
  }
}

async function during(transfer: Promise<void>, meanwhile: () => void): Promise<void> {
  try {
    meanwhile();
  } finally {
    await transfer;
  }
}

/** Whether this process has a mapping of so many bytes of a file. */
export function shows(name: string, length: bigint): boolean {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(name))
    .some((line) => {
      const [start = '', end = ''] = /^[0-9a-f]+-[0-9a-f]+/.exec(line)?.[0].split('-') ?? [];
      return BigInt(`0x${end}`) - BigInt(`0x${start}`) === length;
    });
}
