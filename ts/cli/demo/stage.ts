/**
 * What the demo needs of its devices, simulated or real.
 */
import type { Backing } from '../../index.ts';

/** A device that does DMA. */
export interface Initiator {
  readonly name: string;
  write(iova: bigint, bytes: Uint8Array): Promise<void>;
  /** Writes where nothing may be mapped; says how the device found out, `undefined` if the write went through. */
  tryWrite(iova: bigint, bytes: Uint8Array): Promise<string | undefined>;
}

/** A device with memory in a BAR. */
export interface Peer {
  readonly name: string;
  readonly length: bigint;
  readonly backing: Backing;
  /** The first bytes of the BAR, as the device has them. */
  read(length: number): Uint8Array;
  clear(length: number): void;
}

/** One who joins when everything is set up. */
export interface LateTarget {
  readonly name: string;
  /** Ranges it was given. */
  mapped(): string[];
  /** `undefined` where nothing can do DMA through it. */
  readonly device: Initiator | undefined;
}

export interface Stage extends AsyncDisposable {
  start(): Promise<{ a: Initiator; b: Peer }>;
  join(): Promise<LateTarget>;
}
