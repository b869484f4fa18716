/**
 * Accesses of a guest that its device does not answer. Hardware returns all ones for a read then, and drops a write.
 */
import { channel } from 'node:diagnostics_channel';
import { PeerDmaError } from '../errors.ts';

/**
 * Message of the channel `peerdma:pci.fault`: a device did not answer its guest, which reads ones, or its write was
 * dropped.
 */
export interface PciFaultEvent {
  /** {@link GuestMemory.id} of the guest memory that the device is in. */
  readonly memory: number;
  /** PCI address. */
  readonly device: string;
  /** What the guest did. */
  readonly access: 'config read' | 'config write' | 'BAR read' | 'BAR write';
  /** 0 to 5, 6 for the ROM; `undefined` for config space. */
  readonly bar: number | undefined;
  /** Bytes from the start of config space or the BAR. */
  readonly offset: number | bigint;
  /** Bytes. */
  readonly length: number;
  /** What the kernel reported. */
  readonly error: PeerDmaError;
}

const faultChannel = channel('peerdma:pci.fault');

/**
 * Codes of accesses that the host refuses because the device is switched off, asleep, or gone, or the file behind a
 * simulated BAR was truncated.
 */
const UNANSWERED: ReadonlySet<string> = new Set(['ERR_BAR_DISABLED', 'ERR_SYSTEM', 'ERR_OUT_OF_RANGE']);

/** What a bus reads where nobody answers. @internal */
export function ones(length: number): Uint8Array {
  return new Uint8Array(length).fill(0xff);
}

/**
 * Makes an access for a guest, and publishes it if the device does not answer.
 *
 * @param event of that access; made when it is published, since an access takes less time than this object
 * @returns what the device answers; `undefined` if it does not
 * @throws any other error, such as `ERR_CLOSED`
 * @internal
 */
export function answered<T>(event: () => Omit<PciFaultEvent, 'error'>, access: () => T): T | undefined {
  try {
    return access();
  } catch (error) {
    if (!(error instanceof PeerDmaError && UNANSWERED.has(error.code))) throw error;
    if (faultChannel.hasSubscribers) faultChannel.publish({ ...event(), error } satisfies PciFaultEvent);
    return undefined;
  }
}
