/**
 * Doorbells: writes of the guest that signal an event instead of an exit.
 */
import type { NativeMachine } from '#native';
import { native } from '../native-call.ts';
import { type EventFd, nativeEventFdOf } from '../event-fd.ts';
import { PeerDmaError } from '../errors.ts';

/** The writes that ring a doorbell. */
export interface Doorbell {
  /** The port, 0 to 65535. Either this or `gpa`. */
  readonly port?: number;
  /** The guest-physical address. Either this or `port`. */
  readonly gpa?: bigint;
  /** Only writes of this width in bytes (1, 2, 4 or 8), and with this value. Default: all writes */
  readonly only?: { readonly width: number; readonly value: bigint };
}

/** Adds a doorbell. Returns a function that removes it. @internal */
export function addDoorbell(machine: NativeMachine, { port, gpa, only }: Doorbell, event: EventFd): () => void {
  if ((port === undefined) === (gpa === undefined)) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'a doorbell has either a port or a guest-physical address (gpa)');
  }
  const handle = nativeEventFdOf(event);
  const isPort = port !== undefined;
  const address = gpa ?? BigInt(port ?? 0);
  native(() => machine.addDoorbell(handle, isPort, address, only?.width, only?.value));
  let isAdded = true;
  return () => {
    if (!isAdded) return;
    native(() => machine.removeDoorbell(handle, isPort, address, only?.width, only?.value));
    isAdded = false;
  };
}
