/**
 * The interface of the devices of the demo, simulated or real.
 */
import type { Backing } from '../../index.ts';

/** A device that does DMA. */
export interface Initiator {
  readonly name: string;
  write(iova: bigint, bytes: Uint8Array): Promise<void>;
  /** Writes to an address that may be unmapped. Returns the result of a failed write; `undefined` for success. */
  tryWrite(iova: bigint, bytes: Uint8Array): Promise<string | undefined>;
}

/** A device with memory in a BAR. */
export interface Peer {
  readonly name: string;
  readonly length: bigint;
  readonly backing: Backing;
  /** Reads the first bytes of the BAR. */
  read(length: number): Uint8Array;
  /** Fills the first bytes of the BAR with zeros. */
  clear(length: number): void;
}

/** A DMA target that joins after the map is complete. */
export interface LateTarget {
  readonly name: string;
  /** Returns the ranges that it has mapped. */
  mapped(): string[];
  /** The device behind the target, if it has one. */
  readonly device: Initiator | undefined;
}

/** The devices of the demo. */
export interface Stage extends AsyncDisposable {
  start(): Promise<{ a: Initiator; b: Peer }>;
  join(): Promise<LateTarget>;
}
