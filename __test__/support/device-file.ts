/**
 * Memory that counts as a device's, and a target whose mappings of it become void as iommufd's do.
 */
import type { ExecutionContext } from 'ava';
import type { AddressRange, DmaMapRequest, MemoryFile } from '../../ts/index.ts';
import { type DeviceState, declareDevice, deviceStateOf } from '../../ts/memory/device-state.ts';
import { taggedFile } from './pages.ts';
import { RecordingTarget } from './recording-target.ts';

/** A device that only has memory. */
export class MemoryOfDevice implements DeviceState {
  readonly file: MemoryFile;
  accessible = true;
  revocations = 0;

  /** Page `n` of its memory is filled with the byte `firstTag + n`. */
  constructor(t: ExecutionContext, name: string, pages: number, firstTag = 0x40) {
    this.file = taggedFile(t, name, pages, firstTag);
    declareDevice(this.file, this);
  }

  /** What maps its memory as a dma-buf loses it. */
  revoke(): void {
    this.revocations++;
  }

  /** Memory decode off, or on. */
  decode(on: boolean): void {
    if (this.accessible && !on) this.revoke();
    this.accessible = on;
  }
}

/** {@link RecordingTarget} that maps files as such, and knows which of its mappings are void. */
export class RevocableTarget extends RecordingTarget {
  readonly #made = new Map<bigint, number>();

  constructor(options: ConstructorParameters<typeof RecordingTarget>[0] = {}) {
    super({ needsVa: 'private', ...options });
  }

  isRevoked({ start }: AddressRange): boolean {
    const request = this.held().find(({ range }) => range.start === start);
    return request !== undefined && revocationsOf(request) !== this.#made.get(start);
  }

  protected override take(request: DmaMapRequest): void {
    super.take(request);
    this.#made.set(request.range.start, revocationsOf(request));
  }
}

function revocationsOf({ backing }: DmaMapRequest): number {
  return backing === 'private' ? 0 : (deviceStateOf(backing.file)?.revocations ?? 0);
}
