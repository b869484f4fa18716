/** The type of a function in the guest's PCI Express hierarchy, if the VMM overrides it. */
import { PeerDmaError } from '../../errors.ts';
import type { Capability, Structure } from './capabilities.ts';
import { expressLength } from './capability-lengths.ts';
import type { ConfigImage } from './config-image.ts';
import type { Emulation } from './emulation.ts';
import {
  EXP_ENDPOINT_SIZEOF_V1,
  EXP_FLAGS,
  EXP_FLAGS_TYPE,
  EXP_FLAGS_TYPE_SHIFT,
  EXP_LNKCAP,
  EXP_LNKCAP2,
  EXP_LNKCTL,
  EXP_LNKCTL2,
  EXP_LNKSTA,
  EXP_LNK_2_5GT,
  EXP_LNK_X1,
  EXP_TYPE_ENDPOINT,
  EXP_TYPE_LEG_END,
  EXP_TYPE_RC_END,
} from './registers.ts';

/**
 * The type of a function for the guest.
 *
 * - `endpoint` and `legacy-endpoint`: below a root port or a switch;
 * - `integrated-endpoint`: on a root bus, without a link;
 * - `conventional`: not PCI Express, so that config space has 256 bytes.
 */
export type GuestPortType = 'endpoint' | 'legacy-endpoint' | 'integrated-endpoint' | 'conventional';

/** PCI_EXP_TYPE_* of Linux (PCI Express Base Specification, 7.5.3.2). */
const TYPES: Readonly<Record<Exclude<GuestPortType, 'conventional'>, number>> = {
  endpoint: EXP_TYPE_ENDPOINT,
  'legacy-endpoint': EXP_TYPE_LEG_END,
  'integrated-endpoint': EXP_TYPE_RC_END,
};

/** @internal */
export const PORT_TYPES: readonly string[] = [...Object.keys(TYPES), 'conventional'];

/** @internal */
export class PortTypeOverride {
  /** The PCI Express capability, if the guest does not have it. */
  readonly hidden: Structure | undefined;
  readonly #image: ConfigImage;
  readonly #offset: number;
  readonly #type: number | undefined;
  /** Bytes of the capability. */
  readonly #length: number;

  /**
   * @param of.express the PCI Express capability of the device
   * @param of.all its conventional capabilities
   * @throws {PeerDmaError} `ERR_UNSUPPORTED` if the device is not PCI Express, or its capability is too short
   */
  constructor(
    image: ConfigImage,
    of: { readonly express: Capability | undefined; readonly all: readonly Capability[] },
    type: GuestPortType,
  ) {
    const { express, all } = of;
    this.#image = image;
    this.#offset = express?.offset ?? 0;
    this.#type = type === 'conventional' ? undefined : TYPES[type];
    const length = express === undefined ? 0 : expressLength(image, express, all);
    this.#length = Math.min(length, image.size - this.#offset); // the host may have truncated config space
    if (this.#type === undefined) {
      this.hidden = express && { offset: express.offset, length: this.#length };
      return;
    }
    const fail = (reason: string): PeerDmaError => {
      const text = `${image.bdf}: the port type ${type} failed: ${reason}. Omit the port type.`;
      return new PeerDmaError('ERR_UNSUPPORTED', text, { bdf: image.bdf });
    };
    if (express === undefined) throw fail('the device is not PCI Express');
    if (this.#changesLink && this.#type !== EXP_TYPE_RC_END && this.#length < EXP_ENDPOINT_SIZEOF_V1) {
      throw fail('its capability has no registers for a link');
    }
  }

  /** Whether the function has a link for the device, and not for the guest, or the reverse. */
  get #changesLink(): boolean {
    const own = (this.#image.u16(this.#offset + EXP_FLAGS) & EXP_FLAGS_TYPE) >> EXP_FLAGS_TYPE_SHIFT;
    return (own === EXP_TYPE_RC_END) !== (this.#type === EXP_TYPE_RC_END);
  }

  /**
   * Defines the type and the link registers.
   *
   * An integrated endpoint has no link: they read as 0. A link that the device does not have is one of 2.5 GT/s with
   * one lane. QEMU presents both in the same way (`vfio_setup_pcie_cap`).
   */
  define(emulation: Emulation): void {
    const type = this.#type;
    if (type === undefined) return;
    emulation.define({
      offset: this.#offset + EXP_FLAGS,
      length: 2,
      value: type << EXP_FLAGS_TYPE_SHIFT,
      emulated: EXP_FLAGS_TYPE,
      forwarded: 0,
    });
    if (!this.#changesLink) return;
    const link = type === EXP_TYPE_RC_END ? 0 : EXP_LNK_2_5GT | EXP_LNK_X1;
    const registers = [
      { register: EXP_LNKCAP, length: 4, value: link },
      { register: EXP_LNKCTL, length: 2, value: 0 },
      { register: EXP_LNKSTA, length: 2, value: link },
      { register: EXP_LNKCAP2, length: 4, value: 0 },
      { register: EXP_LNKCTL2, length: 4, value: 0 }, // and the status in its upper half
    ];
    for (const { register, length, value } of registers) {
      if (register + length > this.#length) continue;
      emulation.define({ offset: this.#offset + register, length, value, emulated: 0xffffffff });
    }
  }
}
