/** The parts of what a migration transfers: RAM by address, and the data of devices by name. */

/** The bytes of a range of RAM. */
export interface RamChunk {
  /** Distinguishes it from the data of a device. */
  readonly kind: 'ram';
  /** Guest-physical address of the first byte. */
  readonly gpa: bigint;
  /** The bytes. */
  readonly bytes: Uint8Array;
}

/** Data of a device. The order of the chunks of a device matters. */
export interface DeviceChunk {
  /** Distinguishes it from RAM. */
  readonly kind: 'device';
  /** The name that the device has in the options. */
  readonly device: string;
  /** The bytes. */
  readonly bytes: Uint8Array;
}

/** A part of what a migration transfers. */
export type MigrationChunk = RamChunk | DeviceChunk;
