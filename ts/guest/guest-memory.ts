/**
 * Guest memory: RAM, device memory, and the DMA targets that follow them.
 */
import { type AbortOptions, readSignal, runAbortable } from '../abort.ts';
import { AddressRange } from '../address-range.ts';
import { readOptions } from '../arguments.ts';
import { Closing } from '../closing.ts';
import { PeerDmaError } from '../errors.ts';
import { INSPECT, objectText, withSnapshotText } from '../object-text.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { GuestAddressSpace } from './guest-address-space.ts';
import { addressWidthFor } from './address-width.ts';
import { DeviceMemory, type DeviceMemoryOptions } from './device-memory.ts';
import { DmaMapperClient } from './dma-mapper-client.ts';
import { GuestAccess } from './guest-access.ts';
import type { Explanation } from './explain.ts';
import { type MemorySnapshot, snapshot } from './inspect.ts';
import { MemorySharing } from './memory-sharing.ts';
import { type MemoryChange, changeMemory } from './memory-change.ts';
import { type NewRam, addRam } from './new-ram.ts';
import { PluggableRam } from './pluggable-ram.ts';
import {
  type PluggableRamOptions,
  type RamOptions,
  readPluggableRam,
  readRam,
  readRams,
  requireApart,
} from './ram-options.ts';
import { Ram } from './ram.ts';
import type { RegionState } from './region-state.ts';
import { rehearseMove } from './rehearsal.ts';
import { RegionManager } from './region-manager.ts';
import { transaction } from './transaction.ts';
import { explainNow } from './explain-now.ts';

/** The address space of guest memory, for the rest of this package. @internal */
export let guestAddressSpaceOf: (memory: GuestMemory) => GuestAddressSpace;

/** Options of {@link GuestMemory.create}. */
export interface GuestMemoryOptions {
  /** Ranges of RAM, each an active region `ram0`, `ram1`, … Default: none */
  readonly ram?: readonly RamOptions[];
  /**
   * Bits of a guest-physical address, 12 to 46. Give the guest's processors the same: firmware places 64-bit BARs by
   * it. Default: 40, or more if RAM would reach into the upper half of the addresses
   *
   * Host address space of that size is reserved once a target needs it. That fails with `ERR_ADDRESS_SPACE_LIMIT` if
   * the process has no free range of that size: it has room for some fifty guests of 40 bits, three of 44, one of 45,
   * and often none of 46.
   */
  readonly addressWidth?: number;
}

/**
 * The guest's physical address space.
 *
 * Every change is atomic: it applies to regions, flat map and all targets, or to none. Changes are made one at a time,
 * in the order of the calls, whether they are awaited or not.
 */
export class GuestMemory {
  /** Unique in this thread. Events on the diagnostics channels have it. */
  readonly id: number;
  /** Adds regions. */
  readonly regions: RegionManager;
  /** Registers DMA targets. */
  readonly dmaMappers: DmaMapperClient;
  /** Lists the memory that other processes can map by a descriptor. */
  readonly sharing: MemorySharing;
  readonly #space: GuestAddressSpace;
  readonly #access: GuestAccess = new GuestAccess(() => this.#openSpace().map.flat);
  readonly #closing = new Closing();

  static {
    guestAddressSpaceOf = (memory) => {
      if (typeof memory === 'object' && memory !== null && #space in memory) return memory.#space;
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        'a GuestMemory is expected. Pass the result of GuestMemory.create.',
      );
    };
  }

  private constructor(key: typeof PACKAGE_KEY, space: GuestAddressSpace) {
    requirePackageKey(key, 'GuestMemory.create()');
    this.#space = space;
    this.id = space.id;
    this.regions = new RegionManager(space);
    this.dmaMappers = new DmaMapperClient(space);
    this.sharing = new MemorySharing(space);
  }

  /**
   * Creates guest memory with its RAM.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_OVERLAP`,
   * `ERR_HUGE_PAGES_UNAVAILABLE`, `ERR_PAGE_SIZE`; `ERR_UNSUPPORTED_PLATFORM`, `ERR_NATIVE_CORE_MISSING`
   */
  static async create(options: GuestMemoryOptions = {}): Promise<GuestMemory> {
    const { ram: asked = [], addressWidth } = readOptions(options, ['ram', 'addressWidth']);
    const ram = readRams(asked);
    const memory = new GuestMemory(
      PACKAGE_KEY,
      new GuestAddressSpace(addressWidthFor(requireApart(ram), addressWidth)),
    );
    return transaction(async (undo) => {
      undo.push(() => memory.close());
      await addRam(
        memory.#space,
        ram.map((options) => ({ options })),
      ); // before anything else: the caller may close its files now
      await rehearseMove();
      return memory;
    });
  }

  /**
   * Adds RAM, as one change. If it fails, nothing remains.
   *
   * @param options as for {@link GuestMemory.create}, whose `addressWidth` has to suffice
   * @param abort.signal aborts the call. RAM that is mapped by then is removed again
   * @throws {PeerDmaError} `ERR_OVERLAP` with other RAM; `ERR_OUT_OF_RANGE` beyond the address width;
   * `ERR_INVALID_ARGUMENT`, `ERR_UNALIGNED`, `ERR_EMPTY_RANGE`, `ERR_HUGE_PAGES_UNAVAILABLE`, `ERR_MEMORY_FAULT`,
   * `ERR_RANGE_QUARANTINED`, `ERR_CLOSED`; the error of a target
   * @throws the reason of the signal
   */
  async addRam(options: RamOptions, abort: AbortOptions = {}): Promise<Ram> {
    const ram = readRam(options);
    const range = AddressRange.of(ram.start, ram.length);
    return this.#addRam({ options: ram }, abort, (state) => new Ram(PACKAGE_KEY, this.#space, state, range));
  }

  /**
   * Adds RAM whose blocks are plugged and unplugged, as one change. If it fails, nothing remains.
   *
   * @param options as for {@link GuestMemory.addRam}, with blocks
   * @param abort as for {@link GuestMemory.addRam}
   * @throws {PeerDmaError} as {@link GuestMemory.addRam}
   * @throws the reason of the signal
   */
  async addPluggableRam(options: PluggableRamOptions, abort: AbortOptions = {}): Promise<PluggableRam> {
    const { ram, blocks, plugged } = readPluggableRam(options);
    const range = AddressRange.of(ram.start, ram.length);
    return this.#addRam(
      { options: ram, pluggable: { blocks, plugged } },
      abort,
      (state) => new PluggableRam(PACKAGE_KEY, this.#space, state, range, { ...ram, blocks }),
    );
  }

  /**
   * Creates a window for a device's memory, without address and contents.
   *
   * @throws {PeerDmaError} `ERR_UNALIGNED`, `ERR_OUT_OF_RANGE`, `ERR_EMPTY_RANGE`, `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  newDeviceMemory(options: DeviceMemoryOptions): DeviceMemory {
    const names = ['name', 'length', 'mmap', 'peerToPeer', 'peerToPeerDomain'] as const;
    return new DeviceMemory(this.#openSpace(), readOptions(options, names));
  }

  /**
   * Changes several regions and windows as one: all of it applies, or nothing.
   *
   * Two BARs can swap addresses in one change.
   *
   * @param edit makes the edits by methods of its argument, and returns nothing. They apply after it has returned
   * @throws {PeerDmaError} the error of an edit, of `edit` or of a target. Nothing has changed then
   */
  change(edit: (change: MemoryChange) => void): Promise<void> {
    return changeMemory(this.#space, edit);
  }

  /**
   * Copies bytes out of guest memory. The BAR of a VFIO device is read in aligned accesses of up to 4 bytes, or 8 if
   * the kernel supports them, which may have side effects in the device.
   *
   * @param gpa guest-physical address
   * @param length bytes
   * @throws {PeerDmaError} `ERR_NOT_MAPPED` with the range of the access, if a part of it has no memory;
   * `ERR_OUT_OF_RANGE` if the file was truncated; `ERR_BAR_DISABLED` for the BAR of a device that does not decode
   * memory or is in a low-power state; `ERR_CLOSED`
   */
  read(gpa: bigint, length: number): Uint8Array {
    return this.#access.read(gpa, length);
  }

  /**
   * Copies bytes into guest memory. Memory may be read-only for devices.
   *
   * @param gpa guest-physical address
   * @throws {PeerDmaError} as {@link GuestMemory.read}
   */
  write(gpa: bigint, bytes: Uint8Array): void {
    this.#access.write(gpa, bytes);
  }

  /**
   * Copies bytes out of guest memory into an array, as {@link GuestMemory.read} does into a new one.
   *
   * @param gpa guest-physical address
   * @param bytes the array to fill
   * @throws {PeerDmaError} as {@link GuestMemory.read}
   */
  readInto(gpa: bigint, bytes: Uint8Array): void {
    this.#access.readInto(gpa, bytes);
  }

  /**
   * Reads one byte.
   *
   * @param gpa guest-physical address
   * @throws {PeerDmaError} as {@link GuestMemory.read}
   */
  read8(gpa: bigint): number {
    return this.#access.read8(gpa);
  }

  /**
   * Reads 16 bits, little-endian.
   *
   * @param gpa guest-physical address, aligned or not
   * @throws {PeerDmaError} as {@link GuestMemory.read}
   */
  read16(gpa: bigint): number {
    return this.#access.read16(gpa);
  }

  /**
   * Reads 32 bits, little-endian.
   *
   * @param gpa guest-physical address, aligned or not
   * @throws {PeerDmaError} as {@link GuestMemory.read}
   */
  read32(gpa: bigint): number {
    return this.#access.read32(gpa);
  }

  /**
   * Reads 64 bits, little-endian.
   *
   * @param gpa guest-physical address, aligned or not
   * @throws {PeerDmaError} as {@link GuestMemory.read}
   */
  read64(gpa: bigint): bigint {
    return this.#access.read64(gpa);
  }

  /**
   * Writes one byte.
   *
   * @param gpa guest-physical address
   * @param value 0 to 2^8 - 1
   * @throws {PeerDmaError} as {@link GuestMemory.write}; `ERR_INVALID_ARGUMENT` for a value that does not fit
   */
  write8(gpa: bigint, value: number): void {
    this.#access.write8(gpa, value);
  }

  /**
   * Writes 16 bits, little-endian.
   *
   * @param gpa guest-physical address, aligned or not
   * @param value 0 to 2^16 - 1
   * @throws {PeerDmaError} as {@link GuestMemory.write8}
   */
  write16(gpa: bigint, value: number): void {
    this.#access.write16(gpa, value);
  }

  /**
   * Writes 32 bits, little-endian.
   *
   * @param gpa guest-physical address, aligned or not
   * @param value 0 to 2^32 - 1
   * @throws {PeerDmaError} as {@link GuestMemory.write8}
   */
  write32(gpa: bigint, value: number): void {
    this.#access.write32(gpa, value);
  }

  /**
   * Writes 64 bits, little-endian.
   *
   * @param gpa guest-physical address, aligned or not
   * @param value 0 to 2^64 - 1
   * @throws {PeerDmaError} as {@link GuestMemory.write8}
   */
  write64(gpa: bigint, value: bigint): void {
    this.#access.write64(gpa, value);
  }

  /**
   * Returns regions, flat map, targets and quarantine as plain data. Regions and flat map are those of the last
   * successful change; a change under way may have reached some of the targets.
   */
  inspect(): MemorySnapshot {
    return withSnapshotText('MemorySnapshot', snapshot(this.#space));
  }

  /**
   * Explains an address: its memory, and whether and why DMA targets reach it. Returns the result of {@link explain}
   * for a snapshot, without the cost of a snapshot.
   *
   * @param address guest-physical, which is the IOVA
   * @param target name of a target. Default: all of them
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a malformed address or an unknown target
   */
  explain(address: bigint, target?: string): Explanation {
    return explainNow(this.#space, address, target);
  }

  /**
   * Rejects further changes, waits for queued ones, unmaps everything and releases the memory. Idempotent.
   *
   * @throws {PeerDmaError} `ERR_UNMAP_FAILED`: the memory is kept, and `close` can be called again after
   * {@link DmaMapperClient.targetClosed}
   */
  close(): Promise<void> {
    return this.#closing.once(() => this.#space.close());
  }

  /** As {@link GuestMemory.close}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'GuestMemory', () => [
      `${this.id}`,
      `addressWidth: ${this.#space.width}`,
      `regions: ${this.#space.map.regions().length}`,
      `targets: ${this.#space.mappers.size}`,
      this.#space.closed ? 'closed' : 'open',
    ]);
  }

  /** @param handleOf makes the handle of the region */
  #addRam<R extends Ram>(ram: NewRam, abort: AbortOptions, handleOf: (state: RegionState) => R): Promise<R> {
    const add = async (onTurn: () => void): Promise<R> => {
      const [state] = await addRam(this.#openSpace(), [ram], onTurn);
      return handleOf(state as RegionState);
    };
    return runAbortable(readSignal(abort), add, (handle) => handle.remove());
  }

  #openSpace(): GuestAddressSpace {
    if (this.#space.closed) throw new PeerDmaError('ERR_CLOSED', 'this guest memory is closed');
    return this.#space;
  }
}
