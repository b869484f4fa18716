/**
 * Guest accesses to which the device does not respond.
 *
 * Reads return all ones and writes are dropped, as in hardware.
 */
import { channel } from 'node:diagnostics_channel';
import { PeerDmaError } from '../errors.ts';

/**
 * Message of the channel `peerdma:pci.fault`: a device did not respond to an access of its guest.
 *
 * The guest read all ones, or its write was dropped.
 */
export interface PciFaultEvent {
  /** {@link GuestMemory.id} of the guest memory that the device is in. */
  readonly memory: number;
  /** PCI address. */
  readonly bdf: string;
  /** The kind of access. */
  readonly access: 'config read' | 'config write' | 'BAR read' | 'BAR write';
  /** 0 to 5, 6 for the ROM; `undefined` for config space. */
  readonly bar: number | undefined;
  /** Bytes from the start of config space or the BAR. */
  readonly offset: bigint;
  /** Bytes. */
  readonly length: number;
  /** The error of the kernel. */
  readonly error: PeerDmaError;
}

const faultChannel = channel('peerdma:pci.fault');

/**
 * Error codes of accesses to which the device does not respond.
 *
 * The device does not decode, is in a low-power state or is gone, or the file of a simulated BAR was truncated.
 */
const FAULT_CODES: ReadonlySet<string> = new Set(['ERR_BAR_DISABLED', 'ERR_SYSTEM', 'ERR_OUT_OF_RANGE']);

/** Returns the bytes that a bus reads if no device responds. @internal */
export function allOnes(length: number): Uint8Array {
  return new Uint8Array(length).fill(0xff);
}

/**
 * Runs a guest access, and publishes a fault if the device does not respond.
 *
 * @param event returns the event; called only to publish, since an access takes less time than this object
 * @returns the result of the access; `undefined` if the device does not respond
 * @throws any other error, such as `ERR_CLOSED`
 * @internal
 */
export function tryAccess<T>(event: () => Omit<PciFaultEvent, 'error'>, access: () => T): T | undefined {
  try {
    return access();
  } catch (error) {
    if (!(error instanceof PeerDmaError && FAULT_CODES.has(error.code))) throw error;
    if (faultChannel.hasSubscribers) faultChannel.publish({ ...event(), error } satisfies PciFaultEvent);
    return undefined;
  }
}
