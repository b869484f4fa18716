/**
 * virtio-mem: the guest plugs and unplugs blocks of RAM as the VMM requests.
 *
 * Source: Virtual I/O Device specification 1.2, 5.15.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { AddressRange, type PluggableRam, PeerDmaError } from 'peerdma';
import type { VirtioDevice } from './device.ts';
import type { SplitQueue } from './split-queue.ts';

const TYPE = 24;
/** A guest without this feature would access blocks that are not plugged. */
const UNPLUGGED_INACCESSIBLE = 1n << 1n;
const QUEUE_SIZE = 128;
const CONFIG_LENGTH = 56;
const REQUEST_LENGTH = 24;
const RESPONSE_LENGTH = 10;

/** Requests. */
const PLUG = 0;
const UNPLUG = 1;
const UNPLUG_ALL = 2;
const STATE = 3;

/** Responses. */
const ACK = 0;
const NACK = 1;
const BUSY = 2;
const ERROR = 3;

const STATE_PLUGGED = 0;
const STATE_UNPLUGGED = 1;
const STATE_MIXED = 2;

/** A device whose RAM is pluggable. */
export class VirtioMemory implements VirtioDevice {
  readonly type = TYPE;
  readonly features: bigint = UNPLUGGED_INACCESSIBLE;
  readonly required: bigint = UNPLUGGED_INACCESSIBLE;
  readonly queueSizes: readonly number[] = [QUEUE_SIZE];
  readonly #ram: PluggableRam;
  #requested = 0n;
  #configChanged = (): void => {};

  constructor(ram: PluggableRam) {
    this.#ram = ram;
  }

  /** The bytes that the guest is to have plugged. It changes that in its own time. */
  get requestedLength(): bigint {
    return this.#requested;
  }

  /** Requests a number of bytes, which is cut to the length of the RAM and rounded down to blocks. */
  request(length: bigint): void {
    const { range, blockSize } = this.#ram;
    const [least, most] = [length < 0n ? 0n : length, range.length];
    const within = least > most ? most : least;
    this.#requested = within - (within % blockSize);
    this.#configChanged();
  }

  watchConfig(changed: () => void): void {
    this.#configChanged = changed;
  }

  config(): Uint8Array {
    const { range, blockSize, pluggedLength } = this.#ram;
    const view = new DataView(new ArrayBuffer(CONFIG_LENGTH));
    view.setBigUint64(0, blockSize, true);
    for (const [index, value] of [range.start, range.length, range.length, pluggedLength, this.#requested].entries()) {
      view.setBigUint64(16 + 8 * index, value, true); // all of the region is usable
    }
    return new Uint8Array(view.buffer);
  }

  async process(queue: SplitQueue): Promise<void> {
    let answered = 0;
    for (let buffer = queue.take(); buffer !== undefined; buffer = queue.take()) {
      // A driver that never empties the queue does not stop the rest of the VMM.
      if (answered++ % QUEUE_SIZE === QUEUE_SIZE - 1) await nextTurn();
      const request = queue.read(buffer, REQUEST_LENGTH);
      const { type, state = 0 } = await this.#answer(request);
      const response = new DataView(new ArrayBuffer(RESPONSE_LENGTH));
      response.setUint16(0, type, true);
      response.setUint16(8, state, true);
      queue.put(buffer, queue.write(buffer, new Uint8Array(response.buffer)));
    }
  }

  async #answer(request: Uint8Array): Promise<{ type: number; state?: number }> {
    if (request.length < REQUEST_LENGTH) return { type: ERROR };
    const view = new DataView(request.buffer, request.byteOffset);
    const type = view.getUint16(0, true);
    if (type === UNPLUG_ALL) return { type: await this.#unplug(this.#ram.plugged()) };
    const blocks = this.#blocksAt(view.getBigUint64(8, true), view.getUint16(16, true));
    if (blocks === undefined) return { type: ERROR };
    if (type === PLUG) return { type: await this.#plug(blocks) };
    if (type === UNPLUG) return { type: await this.#unplug([blocks]) };
    return type === STATE ? { type: ACK, state: this.#stateOf(blocks) } : { type: ERROR };
  }

  async #plug(blocks: AddressRange): Promise<number> {
    if (this.#ram.pluggedLength + blocks.length > this.#requested) return NACK;
    return this.#try(() => this.#ram.plug([blocks]));
  }

  #unplug(blocks: readonly AddressRange[]): Promise<number> {
    return this.#try(async () => {
      try {
        await this.#ram.unplug(blocks);
      } catch (error) {
        const isUnplugged = error instanceof PeerDmaError && error.code === 'ERR_DISCARD_FAILED';
        if (!isUnplugged) throw error;
      }
    });
  }

  /** Makes a change, and returns the response. Blocks in the wrong state are an error of the driver. */
  async #try(change: () => Promise<void>): Promise<number> {
    try {
      await change();
      return ACK;
    } catch (error) {
      if (!(error instanceof PeerDmaError)) throw error;
      return error.code === 'ERR_ALREADY_PLUGGED' || error.code === 'ERR_NOT_PLUGGED' ? ERROR : BUSY;
    }
  }

  /** The addresses of blocks, if all of them are blocks of the RAM. */
  #blocksAt(address: bigint, count: number): AddressRange | undefined {
    const { range, blockSize } = this.#ram;
    const end = address + BigInt(count) * blockSize;
    if (count === 0 || address < range.start || end > range.end || address % blockSize !== 0n) return undefined;
    return AddressRange.of(address, end - address);
  }

  #stateOf(blocks: AddressRange): number {
    const plugged = this.#ram.plugged(blocks).reduce((sum, { length }) => sum + length, 0n);
    if (plugged === 0n) return STATE_UNPLUGGED;
    return plugged === blocks.length ? STATE_PLUGGED : STATE_MIXED;
  }
}
