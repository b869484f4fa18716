/**
 * The state of an assigned function, changed as one transaction.
 *
 * It consists of config space, hardware, BAR windows and interrupts. A set in the module has all assigned functions: a
 * function can be an object of the caller, which has no field for it, and is assigned once in all guest memories.
 */
import { types } from 'node:util';
import { AddressRange } from '../address-range.ts';
import { readable, unreadable } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { MutationQueue } from '../guest/mutation-queue.ts';
import { type Undo, transaction } from '../guest/transaction.ts';
import { alignedAccesses, requireAccessLength } from './aligned-accesses.ts';
import { type BarPolicy, type BarsOptions, readBars } from './bar-options.ts';
import { type BarTrap, type ConfigMirror, type PlacedMirror, readMirrors, readTraps } from './bar-quirks.ts';
import { type BarAddresses, BarWindows } from './bar-windows.ts';
import { mirrorAreas } from './config-mirror.ts';
import { type AddedCapability, readCapabilities } from './config/added-capabilities.ts';
import type { VisibleCapability } from './config/chain-view.ts';
import { at } from './config/config-image.ts';
import { type ConfigOverrides, readOverrides } from './config/config-overrides.ts';
import { type Bar, ConfigSpace, type ConfigState, type ConfigWrite } from './config/config-space.ts';
import { COMMAND } from './config/registers.ts';
import { AssignedInterrupts } from './interrupts/assigned-interrupts.ts';
import { type EmulatedArea, Mmio, type PlacedBar } from './mmio.ts';
import { msixAreas, pendingBitsOf } from './msix-areas.ts';
import { type DeviceRegion, type PhysicalFunction, requireFunction } from './physical-function.ts';
import { claimPinned, pinnedAddresses } from './pinned-bars.ts';
import type { Pending } from './pending.ts';
import { tryAccess, allOnes } from './pci-fault.ts';

/** PME_Status, in the upper byte of PMCSR. Writing a one clears it, so writes restore the register without it. */
const PME_STATUS = 0x80;

/** Changes that the VMM makes to the function for its guest. See {@link AssignedDeviceOptions}. @internal */
export interface GuestChanges {
  readonly bars: BarsOptions;
  readonly peerToPeerDomain: string | undefined;
  readonly capabilities: readonly AddedCapability[];
  readonly config: ConfigOverrides;
  readonly traps: readonly BarTrap[];
  readonly mirrors: readonly ConfigMirror[];
}

/** Functions that are assigned, in any guest memory. */
const assigned = new WeakSet<PhysicalFunction>();

/** @internal */
export class GuestFunction {
  readonly device: PhysicalFunction;
  readonly interrupts: AssignedInterrupts;
  readonly windows: BarWindows;
  /** Changes of its state, one at a time. */
  readonly queue: MutationQueue;
  readonly #config: ConfigSpace;
  readonly #mmio: Mmio;
  /** Releases the claim on the addresses of pinned BARs. */
  readonly #release: () => void;
  #state: ConfigState;
  /**
   * Whether the hardware is being reset. True in a config write that resets it, and from {@link quiesce} to
   * {@link powerOn}.
   */
  #resetting = false;

  private constructor(parts: {
    device: PhysicalFunction;
    config: ConfigSpace;
    windows: BarWindows;
    interrupts: AssignedInterrupts;
    memory: GuestMemory;
    emulated: readonly EmulatedArea[];
    mirrors: readonly PlacedMirror[];
    release: () => void;
  }) {
    this.device = parts.device;
    this.interrupts = parts.interrupts;
    this.windows = parts.windows;
    this.#config = parts.config;
    const { bdf } = parts.device;
    this.queue = new MutationQueue(`the assigned device ${bdf}`);
    const mirrored = {
      msiOffset: parts.config.msiOffset,
      read: (offset: number, length: number) => this.ecamRead(offset, length),
      write: (offset: number, bytes: Uint8Array) => this.queue.run(() => this.ecamWrite(offset, bytes)),
    };
    const mirrors = parts.mirrors.flatMap((mirror) => mirrorAreas(mirror, mirrored));
    this.#mmio = new Mmio({ memory: parts.memory.id, bdf }, [...parts.emulated, ...mirrors]);
    this.#release = parts.release;
    this.#state = parts.config.initial;
  }

  /** See {@link AssignedDevice.create}. */
  static async create(device: PhysicalFunction, memory: GuestMemory, changes: GuestChanges): Promise<GuestFunction> {
    guestAddressSpaceOf(memory); // throws if it is not a GuestMemory
    requireFunction(device);
    const { bdf } = device;
    if ((device.guestMemory ?? memory) !== memory) {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `${bdf}: assignment failed: its IOMMU maps another guest memory. Pass that of its VfioContainerManager.`,
        { bdf },
      );
    }
    if (assigned.has(device)) {
      throw new PeerDmaError('ERR_DEVICE_IN_USE', `${bdf} is already assigned. Close its AssignedDevice first.`, {
        bdf,
      });
    }
    const policy = readBars(device, changes.bars, changes.peerToPeerDomain);
    const config = readable(`the device ${bdf}`, () => openConfig(device, policy, changes));
    const release = claimPinned(bdf, memory, config.bars);
    assigned.add(device);
    try {
      await quiesceDevice(device, config);
      const interrupts = new AssignedInterrupts(device.interrupts, {
        bdf,
        msixVectors: config.msix?.vectors ?? 0,
        readPending: pendingBitsOf(config, device),
      });
      const areas = msixAreas(config, interrupts);
      const mirrors = readMirrors(changes.mirrors, { device, config, emulated: areas });
      const traps = readTraps(changes.traps, { device, config, emulated: [...areas, ...mirrors] });
      const emulated = [...areas, ...traps.emulated];
      const windows = await BarWindows.create(bdf, memory, withRegions(config.bars, device), {
        trapped: [...emulated, ...traps.unmapped, ...mirrors],
        accessOf: policy.accessOf,
      });
      return new GuestFunction({ device, config, windows, interrupts, memory, emulated, mirrors, release });
    } catch (thrown) {
      release();
      assigned.delete(device);
      throw unreadable(`the device ${bdf}`, thrown);
    }
  }

  /** See {@link ConfigSpace.capabilities}. */
  get capabilities(): readonly VisibleCapability[] {
    return this.#config.capabilities;
  }

  /** See {@link ConfigSpace.countPresentBytes}. */
  countPresentBytes(offset: number, size: number): number {
    return this.#config.countPresentBytes(offset, size);
  }

  /** Reads all ones past the end of config space, and if the device does not respond. */
  read(offset: number, size: number): Uint8Array {
    const length = this.countPresentBytes(offset, size);
    const bytes = allOnes(size);
    // Hardware reads as all ones during a reset. A read of the device would block the event loop in the kernel.
    if (length === 0 || this.#resetting) return bytes;
    const deviceBytes = this.#tryRead('config read', offset, length);
    if (deviceBytes === undefined) return bytes;
    bytes.set(this.#config.read(this.#state, offset, deviceBytes, { msiPending: this.interrupts.msiPending() }));
    return bytes;
  }

  /**
   * Applies a guest write to config space, hardware, windows and interrupts. If it throws, all are in their old state.
   *
   * A device that does not respond receives nothing: only the emulated registers change, and the device decodes
   * nothing.
   *
   * @param bytes all within config space
   */
  async write(offset: number, bytes: Uint8Array): Promise<void> {
    const { length } = bytes;
    if (length === 0) return;
    const deviceBytes = this.#tryRead('config write', offset, length);
    const write = this.#config.planWrite(this.#state, offset, bytes, deviceBytes ?? allOnes(length));
    const forwards = deviceBytes !== undefined && write.forward.length > 0;
    const emulated =
      deviceBytes === undefined
        ? this.#config.readDecodeRegisters(write.next, (_, count) => allOnes(count))
        : write.next;
    this.#state = await transaction(async (undo) => {
      const next = forwards ? await this.#forward(write, undo) : emulated;
      undo.push(await this.windows.moveTo(this.#config.decoded(next)));
      if (forwards && write.functionReset) this.interrupts.reset();
      this.#configureInterrupts(next); // last, since an undo could not restore the set-up that a reset has discarded
      return next;
    });
  }

  /** Reads the device; `undefined` if it does not respond. */
  #tryRead(access: 'config read' | 'config write', offset: number, length: number): Uint8Array | undefined {
    return tryAccess(
      () => ({ ...this.#mmio.source, access, bar: undefined, offset: BigInt(offset), length }),
      () => this.#read(offset, length),
    );
  }

  /** Reads config space of the device. It may be an implementation of the caller, so the result is checked. */
  #read(offset: number, length: number): Uint8Array {
    const { bdf, config } = this.device;
    const bytes: unknown = config.read(BigInt(offset), length);
    if (types.isUint8Array(bytes) && bytes.length === length) return bytes;
    const reason = `the device did not return a Uint8Array of ${length} bytes`;
    const text = `config space of ${bdf}: reading at ${at(offset)} failed: ${reason}. Return all bytes that are read.`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text, { bdf });
  }

  /** See {@link AssignedDevice.ecamRead}. */
  ecamRead(offset: number, length: number): Uint8Array {
    this.requireEcam(offset, length);
    const bytes = allOnes(length);
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

  /** Splits an ECAM access into accesses of up to 4 bytes, up to the end of config space. */
  #dwords(offset: number, length: number): ReturnType<typeof alignedAccesses> {
    return alignedAccesses(BigInt(offset), Math.min(length, this.#config.size - offset), 4);
  }

  /** See {@link AssignedDevice.decodedBars}. */
  decodedBars(): AddressRange[] {
    return Array.from(this.#placedBars(), ({ range }) => range);
  }

  mmioRead(gpa: bigint, length: number): Uint8Array {
    return this.#mmio.read(this.#placedBars(), gpa, length);
  }

  mmioWrite(gpa: bigint, bytes: Uint8Array): Pending<void> {
    return this.#mmio.write(this.#placedBars(), gpa, bytes);
  }

  /** Unmaps the BARs from guest memory. @returns maps them again */
  unmapBars(): Promise<Undo> {
    return this.windows.moveTo(new Map());
  }

  /**
   * Prepares for a hardware reset, after the BARs were unmapped.
   *
   * Config space reads as all ones until {@link powerOn}.
   */
  async quiesce(): Promise<void> {
    this.#resetting = true;
    this.#state = this.#config.initial;
    try {
      await quiesceDevice(this.device, this.#config);
    } finally {
      this.interrupts.suspend();
    }
  }

  /** Puts the function into its power-on state after a hardware reset. */
  async powerOn(): Promise<void> {
    this.#resetting = false;
    try {
      await quiesceDevice(this.device, this.#config);
    } finally {
      this.interrupts.reset();
      this.#configureInterrupts(this.#state);
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
   * Forwards a write to the device after unmapping the BARs that it moves or disables.
   *
   * @returns the state, updated with the register values that the device has after the write
   */
  async #forward({ next, forward, functionReset }: ConfigWrite, undo: Undo[]): Promise<ConfigState> {
    const unchanged = functionReset ? new Map() : common(this.windows.addresses, this.#config.decoded(next));
    undo.push(await this.windows.moveTo(unchanged));
    const kept = this.#config.decodeRegisters.map((offset) => [offset, this.#read(offset, 2)] as const);
    undo.push(async () => {
      for (const [offset, [low = 0, high = 0]] of kept) {
        await this.#write(offset, Uint8Array.of(low, offset === COMMAND ? high : high & ~PME_STATUS));
      }
      if (functionReset) this.#configureInterrupts(this.#state);
    });
    if (functionReset) this.interrupts.suspend();
    for (const { offset, bytes } of forward) await this.#write(offset, bytes, functionReset);
    const afterWrite = functionReset ? this.#config.afterReset(next) : next;
    return this.#config.readDecodeRegisters(afterWrite, (offset, length) => this.#read(offset, length));
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

  #configureInterrupts(state: ConfigState): void {
    this.interrupts.configure(this.#config.control(state));
  }

  *#placedBars(): Generator<PlacedBar> {
    for (const { bar, region } of this.windows.windows) {
      const gpa = this.windows.addresses.get(bar.index);
      if (gpa !== undefined) yield { index: bar.index, range: AddressRange.of(gpa, bar.length), region };
    }
  }
}

function openConfig(device: PhysicalFunction, bars: BarPolicy, changes: GuestChanges): ConfigSpace {
  const { bdf, config, regions, interrupts } = device;
  return new ConfigSpace({
    bdf,
    bytes: config.read(0n, Number(config.length)),
    regionLengths: regions.map((region) => region?.length),
    pinned: pinnedAddresses(device, bars.pinned),
    intx: interrupts.count('intx') > 0,
    msiVectors: interrupts.count('msi'),
    added: readCapabilities(bdf, changes.capabilities),
    overrides: readOverrides(bdf, changes.config),
  });
}

/**
 * Puts the function into D0 with memory decode and bus mastering off. A wake-up may switch them on, so power goes
 * first.
 */
async function quiesceDevice({ config }: PhysicalFunction, space: ConfigSpace): Promise<void> {
  for (const offset of space.decodeRegisters.toReversed()) {
    await writeConfig(config, space, BigInt(offset), new Uint8Array(2));
  }
}

/** Writes config space. Uses a worker thread for the power state: the kernel waits for the device then. */
function writeConfig(
  config: DeviceRegion,
  { powerRegister }: ConfigSpace,
  offset: bigint,
  bytes: Uint8Array,
): void | Promise<void> {
  const register = powerRegister === undefined ? undefined : AddressRange.of(BigInt(powerRegister), 2n);
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

/** Returns the BARs whose address is the same in both. */
function common(a: BarAddresses, b: BarAddresses): BarAddresses {
  return new Map([...a].filter(([bar, gpa]) => b.get(bar) === gpa));
}
