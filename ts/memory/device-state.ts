/**
 * What a device says of the memory that its file shows: whether it answers, and how often it was taken away from IOMMUs.
 */
import { type MemoryFile, originalOf } from './memory-file.ts';

/** Single accesses to the memory of a device, by offsets in its file. @internal */
export interface DeviceAccess {
  read(offset: bigint, into: Uint8Array): void;
  write(offset: bigint, bytes: Uint8Array): void;
}

/** @internal */
export interface DeviceState {
  /** Whether the memory answers: memory decode is on, and the device is not in D3hot. */
  readonly accessible: boolean;
  /**
   * How often whatever mapped the memory as a dma-buf has lost it by what was done through this device: memory decode off,
   * D3hot, a reset. Only grows.
   */
  readonly revocations: number;
  /** How the VMM reads and writes the memory; `undefined` where the file is memory that can be copied. */
  readonly access?: DeviceAccess;
}

const states = new WeakMap<MemoryFile, DeviceState>();

/** Says that a file shows the memory of a device. @internal */
export function declareDevice(file: MemoryFile, state: DeviceState): void {
  states.set(file, state);
}

/** `undefined` for a file that is no device's. @internal */
export function deviceStateOf(file: MemoryFile | undefined): DeviceState | undefined {
  return file === undefined ? undefined : states.get(originalOf(file));
}
