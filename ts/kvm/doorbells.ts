/**
 * Doorbells: writes of the guest that signal an event instead of an exit.
 */
import type { NativeMachine } from '#native';
import { readOptions, requireUnsigned } from '../arguments.ts';
import { native } from '../native-call.ts';
import { type EventFd, nativeEventFdOf } from '../event-fd.ts';
import { PeerDmaError } from '../errors.ts';
import { requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';

const LAST_PORT = 0xffff;
/** The widths of accesses, in bytes. */
const WIDTHS: readonly number[] = [1, 2, 4, 8];

/** The writes that ring a doorbell. */
export interface Doorbell {
  /** The port, 0 to 65535. Either this or `gpa`. */
  readonly port?: number;
  /** The guest-physical address. Either this or `port`. */
  readonly gpa?: bigint;
  /** Only writes of a width, and with a value. Default: all writes */
  readonly only?: {
    /** Bytes: 1, 2, 4 or 8. */
    readonly width: number;
    /** The value, which fits the width. */
    readonly value: bigint;
  };
}

/** Adds a doorbell. @returns removes it @internal */
export function addDoorbell(machine: NativeMachine, doorbell: Doorbell, event: EventFd): () => void {
  const { port, gpa, only } = readOptions(doorbell, ['port', 'gpa', 'only'], 'a doorbell');
  if ((port === undefined) === (gpa === undefined)) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', 'a doorbell has either a port or a guest-physical address (gpa)');
  }
  const handle = nativeEventFdOf(event);
  const isPort = port !== undefined;
  const address = isPort ? requirePort(port) : requireUnsigned(gpa as bigint, 'gpa'); // it has one of the two
  const { width, value } = only === undefined ? {} : readMatch(only);
  const connection = native(() => machine.addDoorbell(handle, isPort, address, width, value));
  return () => native(() => machine.disconnect(connection));
}

function requirePort(port: number): bigint {
  requireNumber(port, 'port');
  if (Number.isInteger(port) && port >= 0 && port <= LAST_PORT) return BigInt(port);
  throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"port" is a whole number from 0 to 65535, not ${valueText(port)}`);
}

function readMatch(only: NonNullable<Doorbell['only']>): { width: number; value: bigint } {
  const { width, value } = readOptions(only, ['width', 'value'], 'the writes of a doorbell');
  requireNumber(width, 'width');
  if (!WIDTHS.includes(width)) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `"width" is 1, 2, 4 or 8 bytes, not ${valueText(width)}`);
  }
  return { width, value: requireUnsigned(value, 'value') };
}
