/**
 * Interrupt lines of a virtual machine: the pins of its I/O APIC.
 */
import type { NativeMachine } from '#native';
import { readOptions, requireBoolean } from '../arguments.ts';
import { type EventFd, nativeEventFdOf } from '../event-fd.ts';
import { native } from '../native-call.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import type { Registration } from '../registration.ts';
import type { Connections } from './connections.ts';

/** Options of {@link InterruptLine.connect}. */
export interface LineOptions {
  /**
   * Makes the interrupt a level, which ends when the guest acknowledges it. The kernel signals this event then.
   */
  readonly resample?: EventFd;
}

/** An interrupt line: a pin of the I/O APIC. Devices interrupt by it without a message. */
export class InterruptLine {
  /** Its number, from 0 to 23. Lines below 16 are also pins of the two PICs. */
  readonly number: number;
  readonly #machine: NativeMachine;
  readonly #connections: Connections;

  /** @internal */
  constructor(key: typeof PACKAGE_KEY, machine: NativeMachine, connections: Connections, number: number) {
    requirePackageKey(key, 'VirtualMachine.line()');
    this.#machine = machine;
    this.#connections = connections;
    this.number = number;
  }

  /**
   * Sets its level. Devices that share the line share its level: the caller combines them.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  set(high: boolean): void {
    requireBoolean(high, 'the level of an interrupt line');
    native(() => this.#machine.setLine(this.number, high));
  }

  /**
   * Makes each signal of an event an interrupt, without JavaScript (irqfd).
   *
   * @param event stays connected when its owner closes it
   * @returns the connection, whose removal disconnects the event
   * @throws {PeerDmaError} `ERR_SYSTEM` if the event is connected (`EBUSY`); `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  connect(event: EventFd, options: LineOptions = {}): Registration {
    const { resample } = readOptions(options, ['resample']);
    return this.#connections.add(connectEvent(this.#machine, event, this.number, resample));
  }
}

/** Connects an event to the interrupt of a number. @returns disconnects it @internal */
export function connectEvent(machine: NativeMachine, event: EventFd, gsi: number, resample?: EventFd): () => void {
  const handle = nativeEventFdOf(event);
  const resampleHandle = resample === undefined ? undefined : nativeEventFdOf(resample);
  const connection = native(() => machine.connect(handle, gsi, resampleHandle));
  return () => native(() => machine.disconnect(connection));
}
