/** Config space of a guest over a device that stores all writes. */
import { ConfigSpace, type ConfigSpaceOptions, type ConfigState } from '../../../ts/pci/config/config-space.ts';
import type { ForwardedWrite } from '../../../ts/pci/config/emulation.ts';
import { COMMAND, COMMAND_MEMORY } from '../../../ts/pci/config/registers.ts';
import { type Recorded, recorded } from './recorded/load.ts';

type Name = Parameters<typeof recorded>[0];

export class PlainDevice {
  readonly config: ConfigSpace;
  /** The device's config space. */
  readonly bytes: Uint8Array;
  state: ConfigState;
  msiPending = 0;
  /** The bytes that the last write forwarded to the device. */
  told: readonly ForwardedWrite[] = [];
  functionReset = false;

  constructor(name: Name | Recorded, options: Partial<ConfigSpaceOptions> = {}) {
    const image = typeof name === 'string' ? recorded(name) : name;
    this.config = new ConfigSpace({ ...image, intx: true, msiVectors: 32, ...options });
    this.bytes = Uint8Array.from(image.bytes);
    this.state = this.config.initial;
  }

  read(offset: number, size: number): number {
    const { state, msiPending } = this;
    const bytes = this.config.read(state, offset, this.bytes.slice(offset, offset + size), { msiPending });
    return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
  }

  write(offset: number, size: number, value: number): void {
    const bytes = Uint8Array.from({ length: size }, (_, index) => (value / 256 ** index) & 0xff);
    const present = this.bytes.slice(offset, offset + size);
    const { next, forward, functionReset } = this.config.planWrite(this.state, offset, bytes, present);
    this.state = next;
    this.told = forward;
    this.functionReset = functionReset;
    for (const write of forward) this.bytes.set(write.bytes, write.offset);
  }

  /** Writes all ones, reads, and restores the previous value. */
  size(register: number): number {
    const before = this.read(register, 4);
    this.write(register, 4, 0xffffffff);
    const mask = this.read(register, 4);
    this.write(register, 4, before);
    return mask;
  }

  /** Sizes a register byte by byte. */
  sizeByBytes(register: number): number {
    const before = [0, 1, 2, 3].map((byte) => this.read(register + byte, 1));
    for (const byte of [0, 1, 2, 3]) this.write(register + byte, 1, 0xff);
    const mask = [3, 2, 1, 0].reduce((value, byte) => value * 256 + this.read(register + byte, 1), 0);
    for (const byte of [0, 1, 2, 3]) this.write(register + byte, 1, before[byte] ?? 0);
    return mask;
  }

  decodeOn(): void {
    this.write(COMMAND, 2, this.read(COMMAND, 2) | COMMAND_MEMORY);
  }

  decodeOff(): void {
    this.write(COMMAND, 2, this.read(COMMAND, 2) & ~COMMAND_MEMORY);
  }

  /** Reads the device's registers that determine decoding. */
  readDecodeRegisters(): void {
    this.state = this.config.readDecodeRegisters(this.state, (offset, length) =>
      this.bytes.slice(offset, offset + length),
    );
  }

  /** The BARs that decode, with their addresses. */
  get decoded(): Record<number, bigint> {
    return Object.fromEntries(this.config.decoded(this.state));
  }

  /** Returns the offsets of the capabilities in the guest's chain. */
  chain(): number[] {
    if ((this.read(0x06, 2) & 0x10) === 0) return [];
    return this.#walk(this.read(0x34, 1), (offset) => this.read(offset + 1, 1));
  }

  /** Returns identifier and offset of the extended capabilities in the guest's chain. */
  extendedChain(): [id: number, offset: number][] {
    if (this.config.size === 256 || this.read(0x100, 4) === 0) return [];
    const offsets = this.#walk(0x100, (offset) => this.read(offset + 2, 2) >> 4);
    return offsets.map((offset) => [this.read(offset, 2), offset]);
  }

  #walk(first: number, next: (offset: number) => number): number[] {
    const found: number[] = [];
    for (let offset = first; offset !== 0; offset = next(offset)) {
      found.push(offset);
      if (found.length > 1024) throw new Error('the chain does not end');
    }
    return found;
  }
}

/** Returns a recorded device with other bytes at some offsets. */
export function changed(name: Name, changes: Readonly<Record<number, readonly number[]>>): Recorded {
  const image = recorded(name);
  const bytes = Uint8Array.from(image.bytes);
  for (const [offset, values] of Object.entries(changes)) bytes.set(values, Number(offset));
  return { ...image, bytes };
}

/** Returns a recorded device with other regions. */
export function withRegions(name: Name | Recorded, regions: Readonly<Record<number, bigint | undefined>>): Recorded {
  const image = typeof name === 'string' ? recorded(name) : name;
  const regionLengths = image.regionLengths.map((length, index) => (index in regions ? regions[index] : length));
  return { ...image, regionLengths };
}
