/**
 * The state of an assigned function and how it changes: config space as the guest has it, the hardware, the windows of its
 * BARs and its interrupts, all together or not at all.
 */
import { types } from 'node:util';
import { AddressRange } from '../address-range.ts';
import { readable, unreadable } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { type GuestMemory, addressSpaceOf } from '../guest/guest-memory.ts';
import { alignedAccesses, requireAccessLength } from './aligned-accesses.ts';
import { type BarAddresses, BarWindows } from './bar-windows.ts';
import { at } from './config/config-image.ts';
import { type Bar, ConfigSpace, type ConfigState, type ConfigWrite } from './config/config-space.ts';
import { COMMAND } from './config/registers.ts';
import { AssignedInterrupts } from './interrupts/assigned-interrupts.ts';
import { followedBy } from './followed-memory.ts';
import { Mmio, type PlacedBar } from './mmio.ts';
import { msixAreas, pendingBitsOf } from './msix-areas.ts';
import { type DeviceRegion, type PhysicalFunction, requireFunction } from './physical-function.ts';
import { type PinnedBars, claimPinned, pinnedAddresses } from './pinned-bars.ts';
import { answered, ones } from './unanswered.ts';
import { type Undo, undone } from './undo.ts';

/** In the upper byte of the power state's register: a one clears it, so that none may be written back. */
const PME_STATUS = 0x80;

/** Functions that a guest drives. */
const assigned = new WeakSet<PhysicalFunction>();

/** @internal */
export class GuestFunction {
  readonly device: PhysicalFunction;
  readonly interrupts: AssignedInterrupts;
  readonly windows: BarWindows;
  readonly #config: ConfigSpace;
  readonly #mmio: Mmio;
  /** Gives the places of pinned BARs back. */
  readonly #release: () => void;
  #state: ConfigState;
  /** While the hardware is reset: by a write to config space, or between {@link quiesce} and {@link powerOn}. */
  #resetting = false;

  private constructor(parts: {
    device: PhysicalFunction;
    config: ConfigSpace;
    windows: BarWindows;
    interrupts: AssignedInterrupts;
    mmio: Mmio;
    release: () => void;
  }) {
    this.device = parts.device;
    this.interrupts = parts.interrupts;
    this.windows = parts.windows;
    this.#config = parts.config;
    this.#mmio = parts.mmio;
    this.#release = parts.release;
    this.#state = parts.config.initial;
  }

  /** See {@link AssignedDevice.create}. */
  static async create(device: PhysicalFunction, memory: GuestMemory, bars: PinnedBars): Promise<GuestFunction> {
    addressSpaceOf(memory); // which says so, if it is none
    requireFunction(device);
    const { bdf } = device;
    if ((followedBy(device) ?? memory) !== memory) {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `the IOMMU of ${bdf} follows another guest memory: assign it in the one that its VfioContainerManager was made with`,
        { device: bdf },
      );
    }
    if (assigned.has(device)) {
      throw new PeerDmaError('ERR_DEVICE_IN_USE', `${bdf} is assigned already: close that first`, { device: bdf });
    }
    const config = readable(`the device ${bdf}`, () => openConfig(device, bars));
    const release = claimPinned(bdf, memory, config.bars);
    assigned.add(device);
    try {
      await quiet(device, config);
      const interrupts = new AssignedInterrupts(device.interrupts, {
        bdf,
        msixVectors: config.msix?.vectors ?? 0,
        readPending: pendingBitsOf(config, device),
      });
      const emulated = msixAreas(config, interrupts);
      const windows = await BarWindows.create(bdf, memory, withRegions(config.bars, device), (bar) =>
        emulated.filter((area) => area.bar === bar).map(({ range }) => range),
      );
      const mmio = new Mmio({ memory: memory.id, device: bdf }, emulated);
      return new GuestFunction({ device, config, windows, interrupts, mmio, release });
    } catch (thrown) {
      release();
      assigned.delete(device);
      throw unreadable(`the device ${bdf}`, thrown);
    }
  }

  /** See {@link ConfigSpace.requireAccess}. */
  requireAccess(offset: number, size: number): number {
    return this.#config.requireAccess(offset, size);
  }

  /** All ones past the end of config space, and where the device does not answer. */
  read(offset: number, size: number): Uint8Array {
    const length = this.requireAccess(offset, size);
    const bytes = ones(size);
    // Hardware answers with ones until its reset is done. The kernel would keep the event loop waiting.
    if (length === 0 || this.#resetting) return bytes;
    const present = this.#present('config read', offset, length);
    if (present === undefined) return bytes;
    bytes.set(this.#config.read(this.#state, offset, present, { msiPending: this.interrupts.msiPending() }));
    return bytes;
  }

  /**
   * Config space, hardware, windows and interrupts follow a write of the guest; if it throws, all is as before. A
   * device that does not answer takes nothing: what is emulated takes the write, and the device decodes nothing.
   *
   * @param bytes within config space; none is dropped
   */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    const { length } = bytes;
    if (length === 0) return;
    const present = this.#present('config write', offset, length);
    const write = this.#config.write(this.#state, offset, bytes, present ?? ones(length));
    const forwards = present !== undefined && write.forward.length > 0;
    let next = present === undefined ? this.#config.adopt(write.next, (_, count) => ones(count)) : write.next;
    const undo: Undo[] = [];
    try {
      if (forwards) next = await this.#forward(write, undo);
      undo.push(await this.windows.place(this.#config.decoded(next)));
      if (forwards && write.functionReset) this.interrupts.reset();
      this.#interrupt(next); // last, so that it is not undone: what the guest had set up is gone with a reset
    } catch (error) {
      throw await undone(error, undo);
    }
    this.#state = next;
  }

  /** What the device has there; `undefined` if it does not answer. */
  #present(access: 'config read' | 'config write', offset: number, length: number): Uint8Array | undefined {
    return answered(
      () => ({ ...this.#mmio.source, access, bar: undefined, offset, length }),
      () => this.#read(offset, length),
    );
  }

  /** Reads config space of the device, which a caller may have written. */
  #read(offset: number, length: number): Uint8Array {
    const { bdf, config } = this.device;
    const bytes: unknown = config.read(BigInt(offset), length);
    if (types.isUint8Array(bytes) && bytes.length === length) return bytes;
    const reason = `its device did not return a Uint8Array of ${length} bytes`;
    const text = `config space of ${bdf}: reading at ${at(offset)} failed: ${reason}. Return all bytes that are read.`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { device: bdf });
  }

  /** See {@link AssignedDevice.ecamRead}. */
  ecamRead(offset: number, length: number): Uint8Array {
    this.requireEcam(offset, length);
    const bytes = ones(length);
    for (const [at, width] of this.#dwords(offset, length)) bytes.set(this.read(offset + at, width), at);
    return bytes;
  }

  /** See {@link AssignedDevice.ecamWrite}. */
  async ecamWrite(offset: number, bytes: Uint8Array): Promise<void> {
    for (const [at, width] of this.#dwords(offset, bytes.length)) {
      await this.write(offset + at, bytes.subarray(at, at + width));
    }
  }

  /** @throws {PeerDmaError} as {@link ConfigSpace.requireAccess}; `ERR_EMPTY_RANGE` */
  requireEcam(offset: number, length: number): void {
    requireAccessLength(this.device.bdf, length);
    this.#config.requireAccess(offset, 1);
  }

  /** The accesses that an access by ECAM becomes, as far as config space reaches. */
  #dwords(offset: number, length: number): ReturnType<typeof alignedAccesses> {
    return alignedAccesses(BigInt(offset), Math.min(length, this.#config.size - offset), 4);
  }

  mmioRead(gpa: bigint, length: number): Uint8Array {
    return this.#mmio.read(this.#placed(), gpa, length);
  }

  mmioWrite(gpa: bigint, bytes: Uint8Array): void {
    this.#mmio.write(this.#placed(), gpa, bytes);
  }

  /** Takes the BARs out of guest memory. @returns takes them back */
  withdraw(): Promise<Undo> {
    return this.windows.place(new Map());
  }

  /**
   * The guest's side of a reset, before the hardware's: the BARs are out of guest memory. Config space reads as all
   * ones until {@link powerOn}.
   */
  async quiesce(): Promise<void> {
    this.#resetting = true;
    this.#state = this.#config.initial;
    try {
      await quiet(this.device, this.#config);
    } finally {
      this.interrupts.silence();
    }
  }

  /** As after power-on, once the hardware was reset. */
  async powerOn(): Promise<void> {
    this.#resetting = false;
    try {
      await quiet(this.device, this.#config);
    } finally {
      this.interrupts.reset();
      this.#interrupt(this.#state);
    }
  }

  /** See {@link AssignedDevice.close}. */
  async close(): Promise<void> {
    await this.windows.close();
    this.interrupts.close();
    this.#release();
    await this.device.close();
    assigned.delete(this.device);
  }

  /**
   * Forwards a write to the device, once the BARs that it moves or switches off are out of guest memory.
   *
   * @returns the state with what the device has made of the write
   */
  async #forward({ next, forward, functionReset }: ConfigWrite, undo: Undo[]): Promise<ConfigState> {
    const staying = functionReset ? new Map() : common(this.windows.addresses, this.#config.decoded(next));
    undo.push(await this.windows.place(staying));
    const kept = this.#config.decodeRegisters.map((offset) => [offset, this.#read(offset, 2)] as const);
    undo.push(async () => {
      for (const [offset, [low = 0, high = 0]] of kept) {
        await this.#write(offset, Uint8Array.of(low, offset === COMMAND ? high : high & ~PME_STATUS));
      }
      if (functionReset) this.#interrupt(this.#state);
    });
    if (functionReset) this.interrupts.silence();
    for (const { offset, bytes } of forward) await this.#write(offset, bytes, functionReset);
    const settled = functionReset ? this.#config.afterReset(next) : next;
    return this.#config.adopt(settled, (offset, length) => this.#read(offset, length));
  }

  /** Writes config space of the device. */
  async #write(offset: number, bytes: Uint8Array, resets = false): Promise<void> {
    const { config } = this.device;
    if (!resets) return writeConfig(config, this.#config, BigInt(offset), bytes);
    if (config.writeAsync === undefined) return config.write(BigInt(offset), bytes);
    this.#resetting = true;
    try {
      await config.writeAsync(BigInt(offset), bytes);
    } finally {
      this.#resetting = false;
    }
  }

  #interrupt(state: ConfigState): void {
    this.interrupts.configure(this.#config.control(state));
  }

  *#placed(): Generator<PlacedBar> {
    for (const { bar, region } of this.windows.windows) {
      const gpa = this.windows.addresses.get(bar.index);
      if (gpa !== undefined) yield { index: bar.index, range: AddressRange.of(gpa, bar.length), region };
    }
  }
}

function openConfig(device: PhysicalFunction, bars: PinnedBars): ConfigSpace {
  const { bdf, config, regions, interrupts } = device;
  return new ConfigSpace({
    device: bdf,
    bytes: config.read(0n, Number(config.length)),
    regionLengths: regions.map((region) => region?.length),
    pinned: pinnedAddresses(device, bars),
    intx: interrupts.count('intx') > 0,
    msiVectors: interrupts.count('msi'),
  });
}

/** Awake, with memory decode and bus mastering off. Waking up may switch them on again, so power goes first. */
async function quiet({ config }: PhysicalFunction, space: ConfigSpace): Promise<void> {
  for (const offset of space.decodeRegisters.toReversed()) {
    await writeConfig(config, space, BigInt(offset), new Uint8Array(2));
  }
}

/** Writes config space, on a worker thread if that may change the power state: the kernel waits for the device then. */
function writeConfig(
  config: DeviceRegion,
  { decodeRegisters: [, power] }: ConfigSpace,
  offset: bigint,
  bytes: Uint8Array,
): void | Promise<void> {
  const register = power === undefined ? undefined : AddressRange.of(BigInt(power), 2n);
  const mayWake = register?.overlaps(AddressRange.of(offset, BigInt(bytes.length))) === true;
  return mayWake && config.writeAsync !== undefined ? config.writeAsync(offset, bytes) : config.write(offset, bytes);
}

function withRegions(bars: readonly Bar[], { regions }: PhysicalFunction): [Bar, DeviceRegion][] {
  const found: [Bar, DeviceRegion][] = [];
  for (const bar of bars) {
    const region = regions[bar.index];
    if (region !== undefined) found.push([bar, region]);
  }
  return found;
}

/** Those that are the same in both. */
function common(a: BarAddresses, b: BarAddresses): BarAddresses {
  return new Map([...a].filter(([bar, gpa]) => b.get(bar) === gpa));
}
