/**
 * Interrupt lines of a virtual machine: the pins of its I/O APIC.
 */
import type { NativeMachine } from '#native';
import { readOptions, requireBoolean } from '../arguments.ts';
import { type EventFd, holdEvent, nativeEventFdOf } from '../event-fd.ts';
import { native } from '../native-call.ts';
import { type Ender, once } from './enders.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';

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

  /** @internal */
  constructor(key: typeof PACKAGE_KEY, machine: NativeMachine, number: number) {
    requirePackageKey(key, 'VirtualMachine.line()');
    this.#machine = machine;
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
   * @returns disconnects the event; later calls do nothing
   * @throws {PeerDmaError} `ERR_SYSTEM` if the event is connected (`EBUSY`); `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  connect(event: EventFd, options: LineOptions = {}): () => void {
    const { resample } = readOptions(options, ['resample']);
    return connectEvent(this.#machine, event, this.number, resample);
  }
}

/** Connects an event to the interrupt of a number. Returns a function that ends that. @internal */
export function connectEvent(machine: NativeMachine, event: EventFd, gsi: number, resample?: EventFd): Ender {
  const handle = nativeEventFdOf(event);
  const resampleHandle = resample === undefined ? undefined : nativeEventFdOf(resample);
  native(() => machine.connect(handle, gsi, resampleHandle));
  // KVM would disconnect an event whose last descriptor is closed.
  const held = [event, ...(resample === undefined ? [] : [resample])].map(holdEvent);
  return once(() => {
    native(() => machine.disconnect(handle, gsi));
    for (const one of held) one.release();
  });
}
