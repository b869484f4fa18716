/**
 * A vhost-user back end in TypeScript, which follows the protocol except for one fault.
 *
 * It maps the memory by the descriptors that it receives, so what it reads and writes is the memory of the guest.
 */
import { EventFd, MemoryFile, type OwnedDescriptor, UnixSocket } from '../../../ts/index.ts';

/** The numbers of requests, written down here again: a wrong number in the package must not pass. */
const NAMES: Readonly<Record<number, string>> = {
  1: 'GET_FEATURES',
  2: 'SET_FEATURES',
  3: 'SET_OWNER',
  5: 'SET_MEM_TABLE',
  8: 'SET_VRING_NUM',
  9: 'SET_VRING_ADDR',
  10: 'SET_VRING_BASE',
  11: 'GET_VRING_BASE',
  12: 'SET_VRING_KICK',
  13: 'SET_VRING_CALL',
  14: 'SET_VRING_ERR',
  15: 'GET_PROTOCOL_FEATURES',
  16: 'SET_PROTOCOL_FEATURES',
  17: 'GET_QUEUE_NUM',
  18: 'SET_VRING_ENABLE',
  24: 'GET_CONFIG',
  25: 'SET_CONFIG',
  31: 'GET_INFLIGHT_FD',
  32: 'SET_INFLIGHT_FD',
  34: 'RESET_DEVICE',
  36: 'GET_MAX_MEM_SLOTS',
  37: 'ADD_MEM_REG',
  38: 'REM_MEM_REG',
};

const SET_MEM_TABLE = 5;

export const BIT = {
  protocolFeatures: 1n << 30n,
  version1: 1n << 32n,
  mq: 1n << 0n,
  replyAck: 1n << 3n,
  config: 1n << 9n,
  inflight: 1n << 12n,
  resetDevice: 1n << 13n,
  memorySlots: 1n << 15n,
};
const ALL_PROTOCOL = BIT.mq | BIT.replyAck | BIT.config | BIT.inflight | BIT.resetDevice | BIT.memorySlots;

/** The faults of a back end, in place of its reply to one request. */
export type Fault =
  | 'die'
  | 'hang'
  | 'hang after it'
  | 'refuse'
  | 'other request'
  | 'short payload'
  | 'no config'
  | 'huge payload'
  | 'no reply flag'
  | 'descriptor'
  | 'half a header'
  | 'noise';

export interface BackEndOptions {
  readonly features?: bigint;
  readonly protocol?: bigint;
  readonly queues?: number;
  readonly slots?: number;
  /** The number of the request at which the fault occurs, from 0 on. */
  readonly faultAt?: number;
  readonly fault?: Fault;
}

export interface TestRegion {
  readonly start: bigint;
  readonly length: bigint;
  readonly offset: bigint;
  readonly file: MemoryFile;
}

export interface TestQueue {
  size?: number;
  base?: number;
  addresses?: readonly bigint[];
  kick?: EventFd | undefined;
  call?: EventFd | undefined;
  error?: EventFd | undefined;
  enabled?: boolean;
  started?: boolean;
}

export class TestBackEnd {
  /** The requests in order. */
  readonly requests: string[] = [];
  readonly regions = new Map<bigint, TestRegion>();
  readonly queues: (TestQueue | undefined)[] = [];
  readonly config = new Uint8Array(64).map((_, index) => index);
  acceptedFeatures = 0n;
  acceptedProtocol = 0n;
  inflight: MemoryFile | undefined;
  /** Faults of the next requests, by name; each occurs once. */
  readonly next = new Map<string, Fault>();
  /** Settles when it has stopped to serve. */
  readonly ended: Promise<void>;
  readonly #socket: UnixSocket;
  readonly #options: Required<Omit<BackEndOptions, 'fault' | 'faultAt'>> & BackEndOptions;

  constructor(socket: UnixSocket, options: BackEndOptions = {}) {
    this.#socket = socket;
    const features = BIT.protocolFeatures | BIT.version1;
    this.#options = { features, protocol: ALL_PROTOCOL, queues: 4, slots: 32, ...options };
    this.ended = this.#serve();
  }

  /** Ends as a process does: without a word, and with all of its memory. */
  die(): void {
    this.#socket.close();
    this.#release([...this.regions.values()]);
    this.regions.clear();
    for (const queue of this.queues) for (const event of [queue?.kick, queue?.call, queue?.error]) event?.close();
    this.queues.splice(0);
    this.inflight?.close();
    this.inflight = undefined;
  }

  read(gpa: bigint, length: number): Uint8Array {
    const { file, at } = this.#find(gpa, length);
    return file.read(at, length);
  }

  write(gpa: bigint, bytes: Uint8Array): void {
    const { file, at } = this.#find(gpa, bytes.length);
    file.write(at, bytes);
  }

  /** The ranges that it maps, as text. */
  ranges(): string[] {
    const sorted = [...this.regions.values()].sort((a, b) => (a.start < b.start ? -1 : 1));
    return sorted.map(({ start, length }) => `0x${start.toString(16)}..0x${(start + length).toString(16)}`);
  }

  #find(gpa: bigint, length: number): { file: MemoryFile; at: bigint } {
    for (const region of this.regions.values()) {
      if (gpa >= region.start && gpa + BigInt(length) <= region.start + region.length) {
        return { file: region.file, at: region.offset + (gpa - region.start) };
      }
    }
    throw new Error(`the back end has no memory at ${gpa}`);
  }

  async #serve(): Promise<void> {
    try {
      for (;;) {
        const header = await this.#socket.receive(12);
        if (header === undefined) break;
        const [request = 0, flags = 0, size = 0] = new Uint32Array(header.bytes.buffer);
        const payload = size === 0 ? new Uint8Array() : ((await this.#socket.receive(size))?.bytes ?? new Uint8Array());
        const number = this.requests.push(NAMES[request] ?? `request ${request}`) - 1;
        const name = NAMES[request] ?? '';
        const fault = number === this.#options.faultAt ? this.#options.fault : this.next.get(name);
        this.next.delete(name);
        const hangs = fault === 'hang after it';
        if (fault !== undefined && !hangs) {
          if (await this.#fail(fault, request, flags, header.descriptors)) return;
          continue;
        }
        const reply = this.#answer(name, payload, header.descriptors);
        for (const descriptor of header.descriptors) descriptor.close();
        if (hangs) return; // with its memory, until die()
        const acknowledges = (flags & 8) !== 0 && (this.acceptedProtocol & BIT.replyAck) !== 0n;
        if (reply !== undefined) await this.#reply(request, reply.payload, reply.descriptors);
        else if (acknowledges) await this.#reply(request, u64(0n));
      }
    } catch {
      // The front end has closed the socket.
    }
    this.die();
  }

  /** @returns whether it has ended */
  async #fail(
    fault: Exclude<Fault, 'hang after it'>,
    request: number,
    flags: number,
    descriptors: readonly OwnedDescriptor[],
  ): Promise<boolean> {
    for (const descriptor of descriptors) descriptor.close();
    switch (fault) {
      case 'die':
        this.die();
        return true;
      case 'hang':
        return true; // with its memory, until die()
      case 'refuse': {
        const isConfirmed = (flags & 8) !== 0;
        const hasReply = (NAMES[request] ?? '').startsWith('GET_');
        if (isConfirmed) await this.#reply(request, u64(1n));
        // A back end that cannot report it ends the connection, or goes on with its old memory.
        else if (hasReply || request === SET_MEM_TABLE) this.die();
        return !isConfirmed && (hasReply || request === SET_MEM_TABLE);
      }
      case 'other request':
        await this.#reply(request + 1, u64(0n));
        return false;
      case 'short payload':
        await this.#reply(request, new Uint8Array(4));
        return false;
      case 'no config':
        await this.#reply(request, new Uint8Array(12));
        return false;
      case 'huge payload':
        await this.#send(request, 5, 0xffff_ffff, new Uint8Array(64));
        return false;
      case 'no reply flag':
        await this.#send(request, 1, 8, u64(0n));
        return false;
      case 'descriptor': {
        const event = EventFd.create();
        await this.#reply(request, u64(0n), [event.fd]);
        event.close();
        return false;
      }
      case 'half a header':
        await this.#socket.send(new Uint8Array(6));
        this.die();
        return true;
      case 'noise':
        await this.#socket.send(new Uint8Array(4096).fill(0xff));
        return false;
    }
  }

  #answer(
    name: string,
    payload: Uint8Array,
    descriptors: readonly OwnedDescriptor[],
  ): { payload: Uint8Array; descriptors?: number[] } | undefined {
    const words = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    const word = (index: number): bigint => words.getBigUint64(index * 8, true);
    const half = (index: number): number => words.getUint32(index * 4, true);
    const queue = (index: number): TestQueue => (this.queues[index] ??= {});
    const event = (): EventFd | undefined =>
      descriptors[0] === undefined ? undefined : EventFd.fromFd(descriptors[0].fd);
    switch (name) {
      case 'GET_FEATURES':
        return { payload: u64(this.#options.features) };
      case 'SET_FEATURES':
        this.acceptedFeatures = word(0);
        return undefined;
      case 'GET_PROTOCOL_FEATURES':
        return { payload: u64(this.#options.protocol) };
      case 'SET_PROTOCOL_FEATURES':
        this.acceptedProtocol = word(0);
        return undefined;
      case 'GET_QUEUE_NUM':
        return { payload: u64(BigInt(this.#options.queues)) };
      case 'GET_MAX_MEM_SLOTS':
        return { payload: u64(BigInt(this.#options.slots)) };
      case 'ADD_MEM_REG':
        this.#add([1], words, descriptors);
        return undefined;
      case 'REM_MEM_REG':
        this.#release([this.regions.get(word(1))]);
        if (!this.regions.delete(word(1))) throw new Error('a region that was not added is removed');
        return undefined;
      case 'SET_MEM_TABLE': {
        this.#release([...this.regions.values()]);
        this.regions.clear();
        this.#add(
          [...Array(half(0)).keys()].map((index) => 1 + index * 4),
          words,
          descriptors,
        );
        return undefined;
      }
      case 'SET_VRING_NUM':
        queue(half(0)).size = half(1);
        return undefined;
      case 'SET_VRING_BASE':
        queue(half(0)).base = half(1);
        return undefined;
      case 'SET_VRING_ADDR':
        for (const address of [word(1), word(2), word(3)]) this.#find(address, 1);
        queue(half(0)).addresses = [word(1), word(2), word(3)];
        return undefined;
      case 'SET_VRING_KICK':
        queue(Number(word(0) & 0xffn)).kick?.close();
        Object.assign(queue(Number(word(0) & 0xffn)), { kick: event(), started: true });
        return undefined;
      case 'SET_VRING_CALL':
        queue(Number(word(0) & 0xffn)).call?.close();
        queue(Number(word(0) & 0xffn)).call = event();
        return undefined;
      case 'SET_VRING_ERR':
        queue(Number(word(0) & 0xffn)).error?.close();
        queue(Number(word(0) & 0xffn)).error = event();
        return undefined;
      case 'SET_VRING_ENABLE':
        queue(half(0)).enabled = half(1) === 1;
        return undefined;
      case 'GET_VRING_BASE': {
        const { base = 0 } = queue(half(0));
        Object.assign(queue(half(0)), { started: false, enabled: false });
        const state = new Uint8Array(Uint32Array.of(half(0), base).buffer);
        return { payload: state };
      }
      case 'GET_CONFIG': {
        const [offset, size] = [half(0), half(1)];
        if (offset + size > this.config.length) return { payload: new Uint8Array() };
        const reply = payload.slice();
        reply.set(this.config.subarray(offset, offset + size), 12);
        return { payload: reply };
      }
      case 'SET_CONFIG':
        this.config.set(payload.subarray(12), half(0));
        return undefined;
      case 'GET_INFLIGHT_FD': {
        this.inflight?.close();
        this.inflight = MemoryFile.create(4096n, { name: 'inflight' });
        const reply = payload.slice();
        new DataView(reply.buffer).setBigUint64(0, 4096n, true);
        return { payload: reply, descriptors: [this.inflight.fd] };
      }
      case 'SET_INFLIGHT_FD':
        this.inflight?.close();
        this.inflight = descriptors[0] === undefined ? undefined : MemoryFile.fromFd(descriptors[0].fd);
        return undefined;
      case 'RESET_DEVICE':
      case 'SET_OWNER':
        return undefined;
      default:
        throw new Error(`${name} is not a request of a front end`);
    }
  }

  /** @param firsts the indexes of the first words of the regions */
  #add(firsts: readonly number[], words: DataView, descriptors: readonly OwnedDescriptor[]): void {
    if (firsts.length !== descriptors.length) throw new Error('each region has a descriptor');
    for (const [index, first] of firsts.entries()) {
      const word = (at: number): bigint => words.getBigUint64((first + at) * 8, true);
      const [start, length, userAddress, offset] = [word(0), word(1), word(2), word(3)];
      if (userAddress !== start) throw new Error('the user address is the guest address');
      const file = MemoryFile.fromFd((descriptors[index] as OwnedDescriptor).fd);
      this.regions.set(start, { start, length, offset, file });
    }
  }

  #release(regions: readonly (TestRegion | undefined)[]): void {
    for (const region of regions) region?.file.close();
  }

  #reply(request: number, payload: Uint8Array, descriptors: readonly number[] = []): Promise<void> {
    return this.#send(request, 5, payload.length, payload, descriptors);
  }

  async #send(
    request: number,
    flags: number,
    size: number,
    payload: Uint8Array,
    descriptors: readonly number[] = [],
  ): Promise<void> {
    const message = new Uint8Array(12 + payload.length);
    message.set(new Uint8Array(Uint32Array.of(request, flags, size).buffer));
    message.set(payload, 12);
    await this.#socket.send(message, { descriptors });
  }
}

function u64(value: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(value).buffer);
}
