/**
 * A driver of a virtio block device.
 *
 * It reads, writes and flushes by a split ring in guest memory (Virtio 1.3, sections 2.7 and 5.2).
 */
import { EventFd, type GuestMemory } from 'peerdma';
import type { VhostUserTarget } from 'peerdma/vhost-user';

/** Descriptors of the queue. A request takes three: header, data, status. */
const SIZE = 64;
const REQUESTS = Math.floor(SIZE / 3);

/** Offsets in the memory of the driver. */
const DESCRIPTORS = 0n;
const AVAILABLE = 0x400n;
const USED = 0x800n;
const HEADERS = 0x1000n;
const HEADER_BYTES = 16n;
const STATUSES = 0x1800n;

/** The bytes of guest memory that the driver uses. */
export const DRIVER_BYTES = 0x2000n;

/** `VIRTIO_BLK_F_FLUSH` and `VIRTIO_F_VERSION_1`. */
export const DRIVER_FEATURES = (1n << 9n) | (1n << 32n);

const SECTOR = 512n;
const NEXT = 1;
const DEVICE_WRITES = 2;
const TYPES = { read: 0, write: 1, flush: 4 } as const;

interface Data {
  readonly address: bigint;
  readonly length: number;
}

interface PendingRequest {
  resolve(status: number): void;
  reject(error: Error): void;
}

/** The first queue of a block device. */
export class VirtioBlk {
  readonly #memory: GuestMemory;
  readonly #target: VhostUserTarget;
  readonly #base: bigint;
  readonly #kick = EventFd.create();
  readonly #call = EventFd.create();
  readonly #free = [...Array(REQUESTS).keys()];
  readonly #pending = new Map<number, PendingRequest>();
  #available = 0;
  #used = 0;

  private constructor(target: VhostUserTarget, memory: GuestMemory, base: bigint) {
    this.#target = target;
    this.#memory = memory;
    this.#base = base;
  }

  /**
   * Sets up queue 0 of a device.
   *
   * @param base address of `DRIVER_BYTES` of RAM, a multiple of 16
   */
  static async start(target: VhostUserTarget, memory: GuestMemory, base: bigint): Promise<VirtioBlk> {
    const driver = new VirtioBlk(target, memory, base);
    memory.write(base, new Uint8Array(Number(DRIVER_BYTES)));
    try {
      await target.setQueue(0, {
        size: SIZE,
        descriptorTable: base + DESCRIPTORS,
        availableRing: base + AVAILABLE,
        usedRing: base + USED,
        kick: driver.#kick,
        call: driver.#call,
      });
    } catch (error) {
      driver.#end();
      throw error;
    }
    driver.#call.onSignal(() => driver.#complete());
    return driver;
  }

  /** Reads whole sectors into guest memory. @returns the status: 0 for success */
  read(sector: bigint, to: bigint, sectors: number): Promise<number> {
    return this.#request('read', sector, { address: to, length: sectors * Number(SECTOR) });
  }

  /** Writes whole sectors from guest memory. @returns the status: 0 for success */
  write(sector: bigint, from: bigint, sectors: number): Promise<number> {
    return this.#request('write', sector, { address: from, length: sectors * Number(SECTOR) });
  }

  /** Makes what was written durable. @returns the status: 0 for success */
  flush(): Promise<number> {
    return this.#request('flush', 0n);
  }

  /** Stops the queue. Requests that are not complete reject. */
  async stop(): Promise<void> {
    await this.#target.stopQueue(0);
    this.#complete();
    this.#end();
  }

  #end(): void {
    this.#kick.close();
    this.#call.close();
    for (const { reject } of this.#pending.values()) reject(new Error('the queue has stopped'));
    this.#pending.clear();
  }

  #request(type: keyof typeof TYPES, sector: bigint, data?: Data): Promise<number> {
    const slot = this.#free.pop();
    if (slot === undefined) throw new Error(`at most ${REQUESTS} requests at once`);
    const header = this.#base + HEADERS + BigInt(slot) * HEADER_BYTES;
    const status = this.#base + STATUSES + BigInt(slot);
    this.#memory.write(
      header,
      bytesOf(16, (view) => {
        view.setUint32(0, TYPES[type], true);
        view.setBigUint64(8, sector, true);
      }),
    );
    this.#memory.write(status, Uint8Array.of(0xff));
    const first = slot * 3;
    this.#describe(first, { address: header, length: 16 }, NEXT, data === undefined ? first + 2 : first + 1);
    if (data !== undefined) this.#describe(first + 1, data, NEXT | (type === 'read' ? DEVICE_WRITES : 0), first + 2);
    this.#describe(first + 2, { address: status, length: 1 }, DEVICE_WRITES, 0);
    return new Promise((resolve, reject) => {
      this.#pending.set(slot, { resolve, reject });
      this.#offer(first);
    });
  }

  #describe(index: number, { address, length }: Data, flags: number, next: number): void {
    const descriptor = bytesOf(16, (view) => {
      view.setBigUint64(0, address, true);
      view.setUint32(8, length, true);
      view.setUint16(12, flags, true);
      view.setUint16(14, next, true);
    });
    this.#memory.write(this.#base + DESCRIPTORS + BigInt(index) * 16n, descriptor);
  }

  /** Makes a chain of descriptors available, then its index, then signals the device. */
  #offer(first: number): void {
    const ring = this.#base + AVAILABLE;
    this.#memory.write(ring + 4n + BigInt(this.#available % SIZE) * 2n, u16(first));
    this.#available = (this.#available + 1) & 0xffff;
    this.#memory.write(ring + 2n, u16(this.#available));
    this.#kick.signal();
  }

  /** Completes requests by the used ring. The back end writes it: ids of requests that are not pending are ignored. */
  #complete(): void {
    const ring = this.#base + USED;
    const index = this.#u16(ring + 2n);
    for (; this.#used !== index; this.#used = (this.#used + 1) & 0xffff) {
      const slot = this.#u32(ring + 4n + BigInt(this.#used % SIZE) * 8n) / 3;
      const request = this.#pending.get(slot);
      if (request === undefined) continue;
      const [status = 0xff] = this.#memory.read(this.#base + STATUSES + BigInt(slot), 1);
      this.#pending.delete(slot);
      this.#free.push(slot);
      request.resolve(status);
    }
  }

  #u16(address: bigint): number {
    const [low = 0, high = 0] = this.#memory.read(address, 2);
    return low | (high << 8);
  }

  #u32(address: bigint): number {
    return this.#u16(address) + this.#u16(address + 2n) * 0x1_0000;
  }
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, value >> 8);
}

function bytesOf(length: number, fill: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(length);
  fill(new DataView(bytes.buffer));
  return bytes;
}
