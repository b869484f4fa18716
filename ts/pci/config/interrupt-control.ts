/**
 * What the guest has asked of a device's interrupts in config space.
 */

/** What config space says of interrupts now. */
export interface InterruptControl {
  /** The guest has forbidden the pin: Command, bit 10. */
  readonly intxDisabled: boolean;
  /** `undefined` where the guest sees no MSI capability. */
  readonly msi:
    | {
        readonly enabled: boolean;
        /** How many vectors the guest has enabled: 1, 2, 4, 8, 16 or 32. */
        readonly vectors: number;
        /** Guest-physical, with the upper half where the device has one. */
        readonly address: bigint;
        /** 16 bits; the vector's number replaces the lowest ones. */
        readonly data: number;
        /** One bit for each vector that is masked; 0 where the device can't mask them one by one. */
        readonly masks: number;
      }
    | undefined;
  /** `undefined` where the device has no MSI-X. */
  readonly msix:
    | {
        readonly enabled: boolean;
        /** All vectors are, whatever the table says of them. */
        readonly masked: boolean;
      }
    | undefined;
}
