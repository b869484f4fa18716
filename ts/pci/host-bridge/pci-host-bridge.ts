/** The PCI host bridge of a guest: config space by ports and ECAM, and BARs by their addresses. */
import { AddressRange } from '../../address-range.ts';
import { readOptions, requireBytes } from '../../arguments.ts';
import { PeerDmaError } from '../../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../../guest/guest-memory.ts';
import { requireBigint } from '../../number-types.ts';
import { INSPECT, objectText } from '../../object-text.ts';
import { requireAccessLength } from '../aligned-accesses.ts';
import { Registration, endAll, endQuietly } from '../../registration.ts';
import type { AttachedFunction } from './attached-function.ts';
import { busCount, readRanges } from './bridge-ranges.ts';
import { ConfigAccesses } from './config-accesses.ts';
import { CONFIG_ADDRESS, CONFIG_DATA, ConfigPorts } from './config-ports.ts';
import { addressText, busOf, parseAddress } from './function-address.ts';
import { FunctionTable } from './function-table.ts';
import type { GuestPciFunction } from './guest-pci-function.ts';
import { HostBridgeFunction } from './host-bridge-function.ts';
import { MmioSpace } from './mmio-space.ts';

/** Options of {@link PciHostBridge}. */
export interface PciHostBridgeOptions {
  /** The guest memory of assigned devices. ECAM and the windows must be free of its RAM. Default: not checked */
  readonly memory?: GuestMemory;
  /**
   * The guest addresses of ECAM (MMCONFIG), from bus 0 on: 1 MiB for each bus. Default: none
   *
   * The number of buses is a power of two up to 256, and the start a multiple of the length.
   */
  readonly ecam?: AddressRange;
  /**
   * Guest addresses for BARs, in whole pages of 4 KiB. A window is either below 4 GiB, for BARs of 32 and 64 bits, or
   * above, for BARs of 64 bits.
   */
  readonly windows: readonly AddressRange[];
}

/** Follows the functions of a {@link PciHostBridge}. @internal */
export interface FunctionWatcher {
  /** Is called after a function was added, and for each one that is there at first. If it throws, so does the call. */
  added(address: string, func: GuestPciFunction): void;
  /** Is called after a function was removed, also if {@link FunctionWatcher.added} failed for it. */
  removed(address: string, func: GuestPciFunction): void;
}

/** Whether any value is a bridge. @internal */
export let isHostBridge: (value: unknown) => value is PciHostBridge;

/**
 * The PCI bus of a guest.
 *
 * Pass it the accesses of the guest that a hypervisor reports: those to the I/O ports 0xcf8 to 0xcff, and those to
 * memory space. A new bridge has one function: itself, at 00:00.0.
 *
 * The result of an access is a value, or a promise if the access has to wait: a config write takes effect when its
 * promise resolves, and accesses that depend on it wait for it. Complete the access for the guest then. Accesses to
 * other functions do not wait.
 *
 * No access throws for what a guest does. An exception is a failure of the host, or an error of the VMM, of a device
 * that was closed before it was removed from the bridge, for example.
 */
export class PciHostBridge {
  /** The I/O port of CONFIG_ADDRESS in configuration mechanism #1. PCI Local Bus Specification 3.0, 3.2.2.3.2. */
  static readonly CONFIG_ADDRESS: number = CONFIG_ADDRESS;
  /** The first I/O port of CONFIG_DATA, which has four. */
  static readonly CONFIG_DATA: number = CONFIG_DATA;
  /** The guest memory of assigned devices, if the bridge was created with one. */
  readonly memory: GuestMemory | undefined;
  /** The guest addresses of ECAM, for the MCFG table of ACPI. */
  readonly ecam: AddressRange | undefined;
  /**
   * The guest addresses for BARs, in ascending order.
   *
   * Firmware places BARs there, and ACPI lists them as resources of the bridge. A BAR that the guest places outside of
   * the windows decodes its addresses as well.
   */
  readonly windows: readonly AddressRange[];
  readonly #functions: FunctionTable;
  readonly #ports: ConfigPorts;
  readonly #mmio: MmioSpace;
  #watcher: FunctionWatcher | undefined;

  static {
    isHostBridge = (value): value is PciHostBridge => typeof value === 'object' && value !== null && #watcher in value;
  }

  /**
   * Creates a bridge with its own function.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` and `ERR_UNALIGNED` for an ECAM or window of another length or
   * alignment; `ERR_OVERLAP` if they overlap each other or RAM; `ERR_OUT_OF_RANGE` for a window across 4 GiB, and for
   * addresses beyond the width of guest memory
   */
  constructor(options: PciHostBridgeOptions) {
    const { memory, ecam, windows } = readOptions(options, ['memory', 'ecam', 'windows'], 'the options of a bridge');
    if (memory !== undefined) guestAddressSpaceOf(memory); // throws if it is not a GuestMemory
    this.memory = memory;
    const ranges = readRanges(memory, ecam, windows);
    this.ecam = ranges.ecam;
    this.windows = Object.freeze(ranges.windows);
    this.#functions = new FunctionTable(memory);
    const config = new ConfigAccesses(this.#functions);
    this.#ports = new ConfigPorts(config);
    this.#mmio = new MmioSpace(ranges.ecam, this.#functions, config);
    this.#functions.add(0, new HostBridgeFunction());
  }

  /** How many buses it has, from bus 0 on: those of ECAM, or 256 without ECAM. */
  get buses(): number {
    return busCount(this.ecam);
  }

  /** The functions by their guest addresses, in the order in which they were added. */
  get functions(): ReadonlyMap<string, GuestPciFunction> {
    return new Map([...this.#functions.all].map(({ address, given }) => [addressText(address), given]));
  }

  /**
   * Adds a function. The guest finds it the next time that it scans the bus.
   *
   * A guest scans functions 1 to 7 of a device only if it has a function 0. If BARs of two functions overlap, the
   * function that was added first decodes the addresses.
   *
   * @param address of the guest, with the numbers of bus, device and function: `00:01.0`
   * @param func an {@link AssignedDevice}, or an implementation of yours. The caller still owns it
   * @returns the registration. Its removal removes the function, as {@link PciHostBridge.remove} does
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for an invalid address or function, and for a device of another guest
   * memory. `ERR_OUT_OF_RANGE` for a bus that ECAM does not have. `ERR_OVERLAP` if the address has a function,
   * `ERR_DEVICE_IN_USE` if the function has another address. The error of a virtual machine that cannot connect the
   * interrupts of the device. The function is not added then
   */
  add(address: string, func: GuestPciFunction): Registration {
    const at = parseAddress(address);
    if (busOf(at) >= this.buses) {
      const text = `${addressText(at)}: adding a function failed: ECAM has ${this.buses} bus(es), numbered from 0`;
      throw new PeerDmaError('ERR_OUT_OF_RANGE', `${text}. Choose one of these buses, or enlarge ECAM.`);
    }
    const attached = this.#functions.add(at, func);
    try {
      this.#watcher?.added(addressText(at), func);
    } catch (error) {
      endQuietly(() => this.#remove(attached));
      throw error;
    }
    return new Registration(() => {
      if (attached.attached) this.#remove(attached);
    });
  }

  /**
   * Removes a function. Does nothing if the address has none.
   *
   * The guest reads ones there from then on. Accesses that wait for a config write of the function read ones, too, or
   * are dropped. Close a device after its removal: until then, its BARs stay mapped in guest memory.
   *
   * @param address as for {@link PciHostBridge.add}
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for an invalid address
   * @throws the error of the function or of its virtual machine while it ends a connection: the function is removed.
   * The next {@link PciHostBridge.add} of the function and the close of the machine try again
   */
  remove(address: string): void {
    const attached = this.#functions.get(parseAddress(address));
    if (attached !== undefined) this.#remove(attached);
  }

  /** Removes a function from everything, also if a part of it fails. */
  #remove({ address, given }: AttachedFunction): void {
    endAll([() => this.#functions.remove(address), () => this.#watcher?.removed(addressText(address), given)]);
  }

  /**
   * Registers callbacks for functions, for the routing of their interrupts.
   *
   * @returns the registration, whose removal ends the calls
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the bridge has such callbacks
   * @internal
   */
  watchFunctions(watcher: FunctionWatcher): Registration {
    if (this.#watcher !== undefined) {
      const reason = 'another virtual machine has the bridge';
      const text = `PciHostBridge: attaching failed: ${reason}. Remove it there first, or create a bridge for each.`;
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    }
    for (const [address, func] of this.functions) watcher.added(address, func);
    this.#watcher = watcher;
    return new Registration(() => (this.#watcher = undefined));
  }

  /**
   * Whether ECAM or a BAR decodes an address.
   *
   * @param gpa guest-physical address
   * @internal
   */
  decodes(gpa: bigint): boolean {
    requireBigint(gpa, 'gpa');
    return this.ecam?.contains(gpa) === true || this.#functions.bars.at(gpa) !== undefined;
  }

  /**
   * Reads an I/O port for the guest (configuration mechanism #1).
   *
   * CONFIG_ADDRESS is a dword at 0xcf8. All bits of a port that does not exist read as one: for other accesses below
   * 0xcfc, and for CONFIG_DATA while it is not enabled, or selects no function. Port 0xcf9, which resets a PC, is not a
   * port of this bridge: pass its accesses of one byte to another device.
   *
   * @param port 0xcf8 to 0xcff
   * @param size 1, 2 or 4 bytes
   * @returns the bytes as an unsigned number
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` and `ERR_OUT_OF_RANGE` for other arguments
   */
  portRead(port: number, size: number): number | Promise<number> {
    return this.#ports.read(port, size);
  }

  /**
   * Writes an I/O port for the guest, as {@link PciHostBridge.portRead} reads it.
   *
   * @param port 0xcf8 to 0xcff
   * @param size 1, 2 or 4 bytes
   * @param value the bytes as an unsigned number
   * @throws {PeerDmaError} as {@link PciHostBridge.portRead}; as {@link AssignedDevice.configWrite}
   */
  portWrite(port: number, size: number, value: number): void | Promise<void> {
    return this.#ports.write(port, size, value);
  }

  /**
   * Reads memory space for the guest: config space in ECAM, or BARs.
   *
   * All bits read as one at addresses that neither ECAM nor a BAR decodes, and of functions that do not exist.
   *
   * @param gpa guest-physical address
   * @param length bytes, 1 to 4096
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_EMPTY_RANGE` and `ERR_OUT_OF_RANGE` for an access that no
   * guest can make
   */
  mmioRead(gpa: bigint, length: number): Uint8Array | Promise<Uint8Array> {
    return this.#mmio.read(requireMmio(gpa, length));
  }

  /**
   * Writes memory space for the guest, as {@link PciHostBridge.mmioRead} reads it.
   *
   * @param gpa guest-physical address
   * @param bytes 1 to 4096; copied before this returns
   * @throws {PeerDmaError} as {@link PciHostBridge.mmioRead}; as {@link AssignedDevice.configWrite} for ECAM, and as
   * {@link AssignedDevice.mmioWrite} for BARs
   */
  mmioWrite(gpa: bigint, bytes: Uint8Array): void | Promise<void> {
    const given = requireBytes(bytes);
    const range = requireMmio(gpa, given.length);
    return this.#mmio.write(range, given.slice());
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'PciHostBridge', () => [
      '',
      `ECAM: ${this.ecam?.toString() ?? 'none'}`,
      `functions: ${[...this.functions.keys()].sort().join(' ') || 'none'}`,
      `windows: ${this.windows.join(' ') || 'none'}`,
    ]);
  }
}

/** Checks an access from a VMM. @throws {PeerDmaError} as {@link PciHostBridge.mmioRead} */
function requireMmio(gpa: bigint, length: number): AddressRange {
  requireBigint(gpa, 'gpa');
  requireAccessLength('PciHostBridge', length, {});
  return AddressRange.of(gpa, BigInt(length)); // throws for an invalid address
}
