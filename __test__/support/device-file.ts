/**
 * A device that only has memory, and a target whose mappings of it are revoked as in iommufd.
 */
import type { ExecutionContext } from 'ava';
import type { AddressRange, DmaMapRequest, MemoryFile } from '../../ts/index.ts';
import type { DeviceState, SharedFile } from '../../ts/memory/shared-file.ts';
import { fileMemoryOf } from '../../ts/memory/memory-file.ts';
import { taggedFile } from './pages.ts';
import { RecordingTarget } from './recording-target.ts';

/** A device that only has memory. */
export class MemoryOfDevice implements DeviceState {
  readonly file: MemoryFile;
  readonly memory: SharedFile;
  accessible = true;
  revocations = 0;
  /** Whether {@link RevocableTarget.isRevoked} throws. */
  isUnclear = false;

  /** Page `n` of its memory is filled with the byte `firstTag + n`. */
  constructor(t: ExecutionContext, name: string, pages: number, firstTag = 0x40) {
    this.file = taggedFile(t, name, pages, firstTag);
    this.memory = fileMemoryOf(this.file);
    this.memory.device = this;
  }

  /** Revokes all dma-buf mappings of its memory. */
  revoke(isUnclear = false): void {
    this.revocations++;
    this.isUnclear = isUnclear;
  }

  /** Switches memory decode on or off. */
  decode(on: boolean): void {
    if (this.accessible && !on) this.revoke();
    this.accessible = on;
  }
}

/** A {@link RecordingTarget} that maps files, and reports which of its mappings are revoked. */
export class RevocableTarget extends RecordingTarget {
  readonly #made = new Map<bigint, number>();
  /** Number of calls of `isRevoked`. */
  revocationChecks = 0;

  constructor(options: ConstructorParameters<typeof RecordingTarget>[0] = {}) {
    super({ needsVa: 'private', ...options });
  }

  isRevoked({ start }: AddressRange): boolean {
    this.revocationChecks++;
    const request = this.held().find(({ range }) => range.start === start);
    const device = request === undefined ? undefined : deviceOf(request);
    if (request === undefined || revocationsOf(request) === this.#made.get(start)) return false;
    if (device instanceof MemoryOfDevice && device.isUnclear) throw new Error('the device does not answer');
    return true;
  }

  protected override take(request: DmaMapRequest): void {
    super.take(request);
    this.#made.set(request.range.start, revocationsOf(request));
  }
}

function revocationsOf({ backing }: DmaMapRequest): number {
  return deviceOf({ backing })?.revocations ?? 0;
}

function deviceOf({ backing }: Pick<DmaMapRequest, 'backing'>): DeviceState | undefined {
  return backing === 'private' ? undefined : fileMemoryOf(backing.file).device;
}
