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
  /** Whether a {@link RevocableTarget} does not know what became of mappings. */
  isUnclear = false;

  /** Page `n` of its memory is filled with the byte `firstTag + n`. */
  constructor(t: ExecutionContext, name: string, pages: number, firstTag = 0x40) {
    this.file = taggedFile(t, name, pages, firstTag);
    declareDevice(this.file, this);
  }

  /** What maps its memory as a dma-buf loses it. */
  revoke(isUnclear = false): void {
    this.revocations++;
    this.isUnclear = isUnclear;
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
  /** How often it was asked for a void mapping. */
  asked = 0;

  constructor(options: ConstructorParameters<typeof RecordingTarget>[0] = {}) {
    super({ needsVa: 'private', ...options });
  }

  isRevoked({ start }: AddressRange): boolean {
    this.asked++;
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
  return backing === 'private' ? undefined : deviceStateOf(backing.file);
}
