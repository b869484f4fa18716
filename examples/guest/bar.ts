/**
 * A BAR as a driver in the guest accesses it: at the guest address that firmware has set.
 */

/** A device with registers that the guest accesses: an assigned device, or a function of the bus. */
export interface GuestMmio {
  mmioRead(gpa: bigint, length: number): Uint8Array;
  mmioWrite(gpa: bigint, bytes: Uint8Array): void;
}

/** Registers at offsets from a guest address. */
export class GuestBar {
  readonly #device: GuestMmio;
  readonly #gpa: bigint;

  constructor(device: GuestMmio, gpa: bigint) {
    this.#device = device;
    this.#gpa = gpa;
  }

  read32(offset: bigint): number {
    return view(this.#device.mmioRead(this.#gpa + offset, 4)).getUint32(0, true);
  }

  write32(offset: bigint, value: number): void {
    const bytes = new Uint8Array(4);
    view(bytes).setUint32(0, value, true);
    this.#device.mmioWrite(this.#gpa + offset, bytes);
  }

  read64(offset: bigint): bigint {
    return view(this.#device.mmioRead(this.#gpa + offset, 8)).getBigUint64(0, true);
  }

  write64(offset: bigint, value: bigint): void {
    const bytes = new Uint8Array(8);
    view(bytes).setBigUint64(0, value, true);
    this.#device.mmioWrite(this.#gpa + offset, bytes);
  }
}

function view({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
