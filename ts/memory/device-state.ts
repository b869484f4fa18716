/**
 * The state of the memory in a device's file: whether it is accessible, and how often its mappings were revoked.
 */
import { type MemoryFile, originalOf } from './memory-file.ts';

/** Single accesses to the memory of a device, by offsets in its file. @internal */
export interface DeviceAccess {
  read(offset: bigint, into: Uint8Array): void;
  write(offset: bigint, bytes: Uint8Array): void;
}

/** @internal */
export interface DeviceState {
  /** Whether memory decode is on and the device is not in D3hot. */
  readonly accessible: boolean;
  /**
   * How often this process has revoked dma-buf mappings of the memory: by memory decode off, D3hot or a reset. Only
   * grows.
   */
  readonly revocations: number;
  /** Reads and writes the memory; `undefined` if the file itself can be read and written. */
  readonly access?: DeviceAccess;
}

const states = new WeakMap<MemoryFile, DeviceState>();

/** Records that a file is the memory of a device. @internal */
export function declareDevice(file: MemoryFile, state: DeviceState): void {
  states.set(file, state);
}

/** Returns the state of a device's file; `undefined` for other files. @internal */
export function deviceStateOf(file: MemoryFile | undefined): DeviceState | undefined {
  return file === undefined ? undefined : states.get(originalOf(file));
}
