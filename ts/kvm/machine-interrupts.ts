/**
 * The interrupts of a virtual machine: its lines, messages, and those of assigned devices.
 */
import type { NativeMachine } from '#native';
import { requireUnsigned } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { native } from '../native-call.ts';
import { requireNumber } from '../number-types.ts';
import { PACKAGE_KEY } from '../package-key.ts';
import { type AssignedInterrupts, isAssignedInterrupts } from '../pci/interrupts/assigned-interrupts.ts';
import type { Registration } from '../registration.ts';
import { valueText } from '../value-text.ts';
import type { Connections } from './connections.ts';
import { DeviceInterruptsConnection } from './device-interrupts.ts';
import { InterruptLine } from './interrupt-line.ts';
import { LINES, MessageRoutes } from './message-routes.ts';

/** @internal */
export class MachineInterrupts {
  readonly #machine: NativeMachine;
  readonly #connections: Connections;
  readonly #routes: MessageRoutes;
  readonly #lines: readonly InterruptLine[];

  constructor(machine: NativeMachine, connections: Connections) {
    this.#machine = machine;
    this.#connections = connections;
    this.#routes = new MessageRoutes(machine);
    this.#lines = Array.from(
      { length: LINES },
      (_, line) => new InterruptLine(PACKAGE_KEY, machine, connections, line),
    );
  }

  /** See {@link VirtualMachine.line}. */
  line(number: number): InterruptLine {
    requireNumber(number, 'number');
    const line = this.#lines[number];
    if (line !== undefined) return line;
    const text = `an interrupt line has a number from 0 to ${LINES - 1}, not ${valueText(number)}`;
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
  }

  /** See {@link VirtualMachine.sendMessage}. */
  sendMessage(address: bigint, data: number): void {
    requireUnsigned(address, 'address');
    requireNumber(data, 'data');
    if (!Number.isInteger(data) || data < 0 || data > 0xffff_ffff) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"data" is a whole number of 32 bits, not ${valueText(data)}`);
    }
    native(() => this.#machine.sendMessage(address, data));
  }

  /**
   * See {@link VirtualMachine.connectInterrupts}.
   *
   * @param failed is called if a change of the guest cannot be applied
   */
  connect(
    interrupts: AssignedInterrupts,
    line: InterruptLine | undefined,
    failed: (error: unknown) => void,
  ): Registration {
    if (!isAssignedInterrupts(interrupts)) {
      const text = 'interrupts of an assigned device are expected. Pass AssignedDevice.interrupts.';
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', text);
    }
    if (line !== undefined && !this.#lines.includes(line)) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', '"line" is a line of this machine: VirtualMachine.line()');
    }
    const connection = new DeviceInterruptsConnection(this.#machine, this.#routes, interrupts, line?.number, failed);
    return this.#connections.add(() => connection.close());
  }
}
