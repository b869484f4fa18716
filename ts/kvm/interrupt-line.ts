/**
 * Interrupt lines of a virtual machine: the pins of its I/O APIC.
 */
import type { NativeMachine } from '#native';
import { type EventFd, nativeEventFdOf } from '../event-fd.ts';
import { native } from '../native-call.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';

/** Options of {@link InterruptLine.connect}. */
export interface LineOptions {
  /** Makes the interrupt a level: it ends when the guest acknowledges it, and this event is signalled then. */
  readonly resample?: EventFd;
}

/** A line, on which devices interrupt without a message. */
export class InterruptLine {
  /** From 0 to 23. Those below 16 are also pins of the two PICs. */
  readonly number: number;
  readonly #machine: NativeMachine;

  /** @internal */
  constructor(key: typeof PACKAGE_KEY, machine: NativeMachine, number: number) {
    requirePackageKey(key, 'VirtualMachine.line()');
    this.#machine = machine;
    this.number = number;
  }

  /**
   * Sets its level. Several devices on a line are one level: that of any of them.
   *
   * @throws {PeerDmaError} `ERR_CLOSED`
   */
  set(high: boolean): void {
    native(() => this.#machine.setLine(this.number, high));
  }

  /**
   * Makes each signal of an event an interrupt, without JavaScript on the way.
   *
   * @param event stays connected when its owner closes it
   * @returns disconnects the event; later calls do nothing
   * @throws {PeerDmaError} `ERR_SYSTEM` if the event is connected (`EBUSY`); `ERR_INVALID_ARGUMENT`, `ERR_CLOSED`
   */
  connect(event: EventFd, { resample }: LineOptions = {}): () => void {
    return connectEvent(this.#machine, event, this.number, resample);
  }
}

/** Connects an event to the interrupt of a number. Returns a function that ends that. @internal */
export function connectEvent(machine: NativeMachine, event: EventFd, gsi: number, resample?: EventFd): () => void {
  const handle = nativeEventFdOf(event);
  const resampleHandle = resample === undefined ? undefined : nativeEventFdOf(resample);
  native(() => machine.connect(handle, gsi, resampleHandle));
  let isConnected = true;
  return () => {
    if (!isConnected) return;
    native(() => machine.disconnect(handle, gsi));
    isConnected = false;
  };
}
