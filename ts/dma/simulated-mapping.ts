/**
 * One mapping of a simulated IOMMU: its memory, and whether it is revoked.
 */
import type { AddressRange } from '../address-range.ts';
import { native } from '../native-call.ts';
import type { DeviceState, SharedFile } from '../memory/shared-file.ts';
import type { HostMemory } from '../memory/host-memory.ts';
import { fileMemoryOf } from '../memory/memory-file.ts';
import type { IommuRules } from './iommu-rules.ts';
import type { MappingSource } from './mapping-source.ts';
import type { DmaMapRequest } from './target.ts';

/** @internal */
export class SimulatedMapping {
  readonly range: AddressRange;
  readonly request: DmaMapRequest;
  readonly #rules: IommuRules;
  readonly #memory: HostMemory | FilePart;
  /** The device whose memory is mapped, and its revocations when it was mapped. */
  readonly #device: DeviceState | undefined;
  readonly #revocations: number;

  constructor(request: DmaMapRequest, source: MappingSource, rules: IommuRules) {
    const { range, backing } = request;
    this.range = range;
    this.request = request;
    this.#rules = rules;
    this.#memory = source.hostMemory ?? new FilePart(source.file, source.offset);
    this.#device = backing === 'private' ? undefined : fileMemoryOf(backing.file).device;
    this.#revocations = this.#device?.revocations ?? 0;
  }

  /** Whether its device has revoked it. */
  get isRevoked(): boolean {
    if (this.#device === undefined || this.#rules.barAfterDeviceOff === 'mapped') return false;
    return this.#device.revocations !== this.#revocations;
  }

  read(offset: bigint, length: number): Uint8Array {
    return this.#isAccessible ? this.#memory.read(offset, length) : new Uint8Array(length);
  }

  write(offset: bigint, bytes: Uint8Array): void {
    if (this.#isAccessible) this.#memory.write(offset, bytes);
  }

  /** Releases its file after the unmap. */
  release(): void {
    if (this.#memory instanceof FilePart) this.#memory.release();
  }

  get #isAccessible(): boolean {
    return this.#device?.accessible !== false && this.#device?.isStopped !== true;
  }
}

/** Part of a file, which it keeps open. */
class FilePart {
  readonly #file: SharedFile;
  readonly #start: bigint;
  readonly release: () => void;

  constructor(file: SharedFile, start: bigint) {
    this.#file = file;
    this.#start = start;
    this.release = file.retain();
  }

  read(offset: bigint, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    native(() => this.#file.handle.read(this.#start + offset, bytes));
    return bytes;
  }

  write(offset: bigint, bytes: Uint8Array): void {
    native(() => this.#file.handle.write(this.#start + offset, bytes));
  }
}
