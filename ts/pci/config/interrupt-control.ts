/** The interrupt set-up of a guest in config space. */

/** The interrupt registers of config space, decoded. */
export interface InterruptControl {
  /** The guest has disabled the pin: Command, bit 10. */
  readonly intxDisabled: boolean;
  /** `undefined` if the guest has no MSI capability. */
  readonly msi:
    | {
        readonly enabled: boolean;
        /** How many vectors the guest has enabled: 1, 2, 4, 8, 16 or 32. */
        readonly vectors: number;
        /** Guest-physical; includes the upper half if the device has one. */
        readonly address: bigint;
        /** 16 bits. The vector's number replaces the lowest bits. */
        readonly data: number;
        /** One bit for each masked vector; 0 if the device has no mask bits. */
        readonly masks: number;
      }
    | undefined;
  /** `undefined` if the device has no MSI-X. */
  readonly msix:
    | {
        readonly enabled: boolean;
        /** All vectors are masked, regardless of the table. */
        readonly masked: boolean;
      }
    | undefined;
}
