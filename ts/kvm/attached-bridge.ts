/**
 * A PCI host bridge on a virtual machine: its ports, memory, and interrupts of assigned devices.
 */
import { AssignedDevice } from '../pci/assigned-device.ts';
import { INTERRUPT_PIN } from '../pci/config/registers.ts';
import type { PciHostBridge } from '../pci/host-bridge/pci-host-bridge.ts';
import { type Ender, endAll } from './enders.ts';
import type { MemoryHandler, PortHandler, PortSpace } from './handlers.ts';

/** The ports of configuration mechanism #1 (PCI Local Bus 3.0, 3.2.2.3.2). 0xcf9 is not one of them. */
const CONFIG_ADDRESS = 0xcf8;
const CONFIG_DATA = 0xcfc;
const DATA_PORTS = 4;
/** The lines of pins: the four pins of each device, one line further for each device. */
const FIRST_PIN_LINE = 16;
const PIN_LINES = 4;

/** Connects the interrupts of a device. Returns a function that disconnects them. @internal */
export type ConnectInterrupts = (device: AssignedDevice, line: number | undefined) => Ender;

/** @internal */
export class AttachedBridge {
  readonly #bridge: PciHostBridge;
  readonly #ends: Ender[] = [];
  readonly #interrupts = new Map<object, Ender>();

  constructor(bridge: PciHostBridge, ports: PortSpace, connect: ConnectInterrupts) {
    this.#bridge = bridge;
    const handler: PortHandler = {
      read: (port, width) => bridge.portRead(port, width),
      write: (port, width, value) => bridge.portWrite(port, width, value),
    };
    try {
      this.#ends.push(ports.add(CONFIG_ADDRESS, 1, handler));
      this.#ends.push(ports.add(CONFIG_DATA, DATA_PORTS, handler));
      this.#ends.push(this.#follow(connect));
    } catch (error) {
      this.detach();
      throw error;
    }
  }

  /** The handler of an address, if ECAM or a BAR decodes it. */
  at(gpa: bigint): MemoryHandler | undefined {
    return this.#bridge.decodes(gpa) ? this.#memory : undefined;
  }

  /** Connects the interrupts of assigned devices, and of those that are added later. */
  #follow(connect: ConnectInterrupts): () => void {
    return this.#bridge.watchFunctions({
      added: (address, func) => {
        if (func instanceof AssignedDevice) this.#interrupts.set(func, connect(func, pinLine(address, func)));
      },
      removed: (_address, func) => {
        const disconnect = this.#interrupts.get(func);
        this.#interrupts.delete(func);
        disconnect?.();
      },
    });
  }

  /** Ends its accesses, and disconnects the interrupts. */
  detach(): void {
    const disconnects = [...this.#interrupts.values()];
    this.#interrupts.clear();
    endAll([...this.#ends.splice(0), ...disconnects]);
  }

  readonly #memory: MemoryHandler = {
    read: (gpa, length) => this.#bridge.mmioRead(gpa, length),
    write: (gpa, bytes) => this.#bridge.mmioWrite(gpa, bytes),
  };
}

/** The line of a device's pin: those of neighbours differ (PCI Local Bus 3.0, 2.2.6). */
function pinLine(address: string, device: AssignedDevice): number | undefined {
  const pin = device.configRead(INTERRUPT_PIN, 1);
  if (pin < 1 || pin > PIN_LINES) return undefined; // it has none, or does not respond
  const slot = Number.parseInt(address.slice(address.indexOf(':') + 1), 16);
  return FIRST_PIN_LINE + ((slot + pin - 1) % PIN_LINES);
}
