/** The chains of capabilities as a guest walks them, without the hidden ones. */
import { type AddedCapability, type PlacedCapability, placeCapabilities } from './added-capabilities.ts';
import {
  type Capability,
  type Chain,
  type Structure,
  capabilities,
  extendedCapabilities,
  hiddenLength,
  requireDisjoint,
  requireWithin,
} from './capabilities.ts';
import { leastLength } from './capability-lengths.ts';
import type { ConfigImage } from './config-image.ts';
import type { Emulation } from './emulation.ts';
import { MsiCapability } from './msi.ts';
import { MsixCapability } from './msix.ts';
import { type GuestPortType, PortTypeOverride } from './port-type.ts';
import { PowerManagement } from './power-management.ts';
import {
  CAPABILITY_LIST,
  CAP_ID_EXP,
  CAP_ID_MSI,
  CAP_ID_MSIX,
  CAP_ID_PM,
  CAP_SIZEOF,
  CFG_SPACE_EXP_SIZE,
  CFG_SPACE_SIZE,
  EXT_CAP_SIZEOF,
  STATUS,
  STATUS_CAP_LIST,
} from './registers.ts';

/** Properties of the device outside its config space, and changes by the VMM. @internal */
export interface ChainOptions {
  /** Lengths of the regions of memory BARs, by VFIO's index. */
  readonly regions: ReadonlyMap<number, bigint>;
  /** How many MSI vectors the host supports; 0 hides MSI. */
  readonly msiVectors: number;
  /** Capabilities that only the guest has. */
  readonly added: readonly AddedCapability[];
  /** Overrides the type in the PCI Express hierarchy. */
  readonly portType: GuestPortType | undefined;
}

/** A capability in the guest's chain. @internal */
export interface VisibleCapability extends Capability {
  /** Whether the VMM has added it. */
  readonly added: boolean;
}

/** @internal */
export class ChainView {
  /** The conventional chain of the guest: the device's without hidden ones, then the added ones. */
  readonly visible: readonly VisibleCapability[];
  readonly power: PowerManagement | undefined;
  /** `undefined` if it is absent or hidden from the guest. */
  readonly msi: MsiCapability | undefined;
  readonly msix: MsixCapability | undefined;
  readonly #image: ConfigImage;
  readonly #extended: readonly Capability[];
  /** The conventional chain of the device. */
  readonly #own: readonly Capability[];
  /** Capabilities of it that the guest does not have. */
  readonly #hidden: readonly Structure[];
  readonly #added: readonly PlacedCapability[];
  readonly #portType: PortTypeOverride | undefined;

  /**
   * @throws {PeerDmaError} `ERR_BAD_CONFIG_SPACE`; `ERR_OVERLAP` and `ERR_OUT_OF_RANGE` for added capabilities without
   * room; `ERR_UNSUPPORTED` for a port type that the device cannot have
   */
  constructor(image: ConfigImage, { regions, msiVectors, added, portType }: ChainOptions) {
    this.#image = image;
    const all = requireUnbroken(capabilities(image));
    this.#own = all.filter((found) => !isTruncated(image, found));
    this.#extended = requireUnbroken(extendedCapabilities(image));
    this.#requireValid(); // the code below relies on offsets within config space
    const power = this.#only(CAP_ID_PM);
    this.power = power && new PowerManagement(image, power);
    const msi = this.#only(CAP_ID_MSI);
    const made = msi && new MsiCapability(image, msi, Math.max(msiVectors, 1));
    this.msi = msiVectors > 0 ? made : undefined;
    this.#portType = portType && new PortTypeOverride(image, { express: this.#only(CAP_ID_EXP), all }, portType);
    this.#hidden = [msiVectors > 0 ? undefined : made, this.#portType?.hidden].filter((each) => each !== undefined);
    const msix = this.#only(CAP_ID_MSIX);
    this.msix = msix && new MsixCapability(image, msix, regions);
    this.#added = placeCapabilities(image, all, added);
    const own = this.#own.filter(({ offset }) => !this.#hidden.some((hidden) => hidden.offset === offset));
    this.visible = [
      ...own.map((each) => ({ ...each, added: false })),
      ...this.#added.map(({ id, offset }) => ({ id, offset, added: true })),
    ];
  }

  /** Defines the rules of links, hidden capabilities and emulated capabilities. */
  define(emulation: Emulation): void {
    for (const { offset, length } of this.#hidden) emulation.defineReserved(offset, length);
    for (const { offset, bytes } of this.#added) emulation.defineReadOnly(offset, bytes);
    this.#defineChain(emulation);
    if (this.#image.size > CFG_SPACE_SIZE) this.#defineExtendedChain(emulation);
    this.#portType?.define(emulation);
    this.power?.define(emulation);
    this.msi?.define(emulation);
    this.msix?.define(emulation);
  }

  #defineChain(emulation: Emulation): void {
    const { visible } = this;
    const first = visible[0]?.offset ?? 0;
    emulation.define({
      offset: STATUS,
      length: 2,
      value: first === 0 ? 0 : STATUS_CAP_LIST,
      emulated: STATUS_CAP_LIST,
    });
    emulation.define({ offset: CAPABILITY_LIST, length: 1, value: first, emulated: 0xff });
    for (const [index, { id, offset }] of visible.entries()) {
      const next = visible[index + 1]?.offset ?? 0;
      emulation.define({ offset, length: CAP_SIZEOF, value: id | (next << 8), emulated: 0xffff });
    }
  }

  #defineExtendedChain(emulation: Emulation): void {
    const hidden = this.#extended.flatMap((capability) => {
      const length = hiddenLength(this.#image, capability);
      return length === undefined ? [] : [{ offset: capability.offset, length }];
    });
    for (const { offset, length } of hidden) emulation.defineReserved(offset, length);
    // A capability within hidden bytes is hidden as well: its registers may be those of the hidden one.
    const visible = this.#extended.filter(
      (each) => !hidden.some(({ offset, length }) => each.offset >= offset && each.offset < offset + length),
    );
    const link = (offset: number, idAndVersion: number, next: Capability | undefined): void =>
      emulation.define({
        offset,
        length: EXT_CAP_SIZEOF,
        value: idAndVersion | ((next?.offset ?? 0) << 20),
        emulated: 0xffffffff,
      });
    // The chain begins at this offset. A hidden first capability is replaced by a null capability that links to the
    // next one; all zeros mean that the chain is empty.
    if (visible[0]?.offset !== CFG_SPACE_SIZE) link(CFG_SPACE_SIZE, 0, visible[0]);
    for (const [index, { offset }] of visible.entries()) {
      link(offset, this.#image.u32(offset) & 0xfffff, visible[index + 1]);
    }
  }

  #only(wanted: number): Capability | undefined {
    const [first, second] = this.#own.filter(({ id }) => id === wanted);
    if (second !== undefined) {
      throw this.#image.bad(second.offset, `it is the second capability of type 0x${wanted.toString(16)}`);
    }
    return first;
  }

  #requireValid(): void {
    const image = this.#image;
    const conventional = this.#own.map((found) => ({
      offset: found.offset,
      length: leastLength(image, found),
    }));
    for (const each of conventional) requireWithin(image, each, CFG_SPACE_SIZE);
    requireDisjoint(image, conventional);
    for (const found of this.#extended) {
      const length = hiddenLength(image, found) ?? EXT_CAP_SIZEOF;
      requireWithin(image, { offset: found.offset, length }, CFG_SPACE_EXP_SIZE);
    }
  }
}

/** Returns the capabilities of a chain. Rejects a broken one. @throws {PeerDmaError} `ERR_BAD_CONFIG_SPACE` */
function requireUnbroken({ found, problem }: Chain): readonly Capability[] {
  if (problem !== undefined) throw problem;
  return found;
}

/** Whether the end of a truncated config space cuts a capability: it is hidden from the guest then. */
function isTruncated(image: ConfigImage, capability: Capability): boolean {
  return image.size < CFG_SPACE_SIZE && capability.offset + leastLength(image, capability) > image.size;
}
