/**
 * A PCI host bridge on a virtual machine: its ports, memory, and interrupts of assigned devices.
 */
import type { NativeMachine } from '#native';
import { PeerDmaError } from '../errors.ts';
import type { GuestMemory } from '../guest/guest-memory.ts';
import { native } from '../native-call.ts';
import { AssignedDevice } from '../pci/assigned-device.ts';
import { INTERRUPT_PIN } from '../pci/config/registers.ts';
import { PciHostBridge } from '../pci/host-bridge/pci-host-bridge.ts';
import type { AssignedInterrupts } from '../pci/interrupts/assigned-interrupts.ts';
import { Registration, endQuietly, removeAll } from '../registration.ts';
import type { MemoryHandler, PortHandler, PortSpace } from './handlers.ts';
import { lineOfPin } from './pin-lines.ts';

/** The ports of CONFIG_DATA. 0xcf9 is not a port of the bridge, so CONFIG_ADDRESS is added as one. */
const DATA_PORTS = 4;

/** The machine of a bridge. @internal */
export interface BridgeMachine {
  readonly core: NativeMachine;
  readonly memory: GuestMemory;
  readonly ports: PortSpace;
  /** @param line number of the line of the pin */
  connectInterrupts(interrupts: AssignedInterrupts, line: number | undefined): Registration;
}

/** @internal */
export class AttachedBridge {
  readonly #bridge: PciHostBridge;
  readonly #machine: BridgeMachine;
  readonly #registrations: Registration[] = [];
  readonly #devices = new Map<object, Registration>();

  constructor(bridge: PciHostBridge, machine: BridgeMachine) {
    this.#bridge = bridge;
    this.#machine = machine;
    const handler: PortHandler = {
      read: (port, width) => bridge.portRead(port, width),
      write: (port, width, value) => bridge.portWrite(port, width, value),
    };
    try {
      this.#registrations.push(machine.ports.add(PciHostBridge.CONFIG_ADDRESS, 1, handler));
      this.#registrations.push(machine.ports.add(PciHostBridge.CONFIG_DATA, DATA_PORTS, handler));
      this.#registrations.push(this.#follow());
    } catch (error) {
      endQuietly(() => this.detach());
      throw error;
    }
  }

  /** The handler of an address, if ECAM or a BAR decodes it. */
  at(gpa: bigint): MemoryHandler | undefined {
    return this.#bridge.decodes(gpa) ? this.#memory : undefined;
  }

  /** Ends its accesses, and disconnects its devices. */
  detach(): void {
    removeAll([...this.#registrations, ...this.#devices.values()]);
  }

  /** Connects assigned devices, and those that are added later. */
  #follow(): Registration {
    return this.#bridge.watchFunctions({
      added: (address, func) => {
        if (!(func instanceof AssignedDevice)) return;
        this.#requireMemory(address, func);
        this.#disconnect(func); // an earlier removal may have failed
        this.#devices.set(func, this.#connect(func, pinLine(address, func)));
      },
      removed: (_address, func) => this.#disconnect(func),
    });
  }

  /** A device of another guest memory would let the guest access that memory by DMA. */
  #requireMemory(address: string, device: AssignedDevice): void {
    if (device.memory === this.#machine.memory) return;
    const text = `virtual machine: connecting the device at ${address} failed: it is in another guest memory`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `${text}. Create it with the memory of the machine.`);
  }

  /** Disconnects a device, if it is connected. Can be repeated after a failure. */
  #disconnect(func: object): void {
    this.#devices.get(func)?.remove();
    this.#devices.delete(func);
  }

  /** Connects the interrupts of a device, and adds it to KVM. */
  #connect({ device: { nativeDevice }, interrupts }: AssignedDevice, line: number | undefined): Registration {
    const { core } = this.#machine;
    const connection = this.#machine.connectInterrupts(interrupts, line);
    if (nativeDevice === undefined) return connection;
    try {
      native(() => core.addDevice(nativeDevice));
    } catch (error) {
      endQuietly(() => connection.remove());
      throw error;
    }
    const added = new Registration(() => native(() => core.removeDevice(nativeDevice)));
    return new Registration(() => removeAll([connection, added]));
  }

  readonly #memory: MemoryHandler = {
    read: (gpa, length) => this.#bridge.mmioRead(gpa, length),
    write: (gpa, bytes) => this.#bridge.mmioWrite(gpa, bytes),
  };
}

/** The line of a device's pin, if it has one. */
function pinLine(address: string, device: AssignedDevice): number | undefined {
  const pin = device.configRead(INTERRUPT_PIN, 1);
  if (pin < 1 || pin > 4) return undefined; // it has none, or does not respond
  return lineOfPin(Number.parseInt(address.slice(address.indexOf(':') + 1), 16), pin);
}
