/**
 * The chains of capabilities as a guest walks them: without those that it must not see.
 */
import {
  type Capability,
  type Chain,
  capabilities,
  extendedCapabilities,
  hiddenLength,
  requireApart,
  requireWithin,
} from './capabilities.ts';
import type { ConfigImage } from './config-image.ts';
import type { Emulation } from './emulation.ts';
import { MsiCapability, msiLength } from './msi.ts';
import { MsixCapability } from './msix.ts';
import { PowerManagement } from './power-management.ts';
import {
  AF_SIZEOF,
  CAPABILITY_LIST,
  CAP_ID_AF,
  CAP_ID_EXP,
  CAP_ID_MSI,
  CAP_ID_MSIX,
  CAP_ID_PM,
  CAP_SIZEOF,
  CFG_SPACE_EXP_SIZE,
  CFG_SPACE_SIZE,
  EXP_LEAST_SIZEOF,
  EXT_CAP_SIZEOF,
  MSIX_SIZEOF,
  MSI_FLAGS,
  PM_SIZEOF,
  STATUS,
  STATUS_CAP_LIST,
} from './registers.ts';

/** What the device is, besides its config space. @internal */
export interface ChainOptions {
  /** Lengths of the regions of memory BARs, by VFIO's index. */
  readonly regions: ReadonlyMap<number, bigint>;
  /** How many MSI vectors the host offers; 0 hides MSI. */
  readonly msiVectors: number;
}

/** @internal */
export class ChainView {
  /** The conventional chain, as the device has it. */
  readonly capabilities: readonly Capability[];
  readonly power: PowerManagement | undefined;
  /** `undefined` where a guest sees none. */
  readonly msi: MsiCapability | undefined;
  readonly msix: MsixCapability | undefined;
  readonly #image: ConfigImage;
  readonly #extended: readonly Capability[];
  /** MSI that no guest sees. */
  readonly #hiddenMsi: MsiCapability | undefined;

  /** @throws {PeerDmaError} `ERR_BAD_CONFIG_SPACE` */
  constructor(image: ConfigImage, { regions, msiVectors }: ChainOptions) {
    this.#image = image;
    this.capabilities = wholeChain(capabilities(image)).filter((found) => !isCut(image, found));
    this.#extended = wholeChain(extendedCapabilities(image));
    this.#requireSound(); // and so within config space, which what follows rests on
    const power = this.#only(CAP_ID_PM);
    this.power = power && new PowerManagement(image, power);
    const msi = this.#only(CAP_ID_MSI);
    const made = msi && new MsiCapability(image, msi, Math.max(msiVectors, 1));
    this.msi = msiVectors > 0 ? made : undefined;
    this.#hiddenMsi = msiVectors > 0 ? undefined : made;
    const msix = this.#only(CAP_ID_MSIX);
    this.msix = msix && new MsixCapability(image, msix, regions);
  }

  /** The rules for the links, for what is hidden, and for the capabilities that are emulated. */
  define(emulation: Emulation): void {
    this.#defineChain(emulation);
    if (this.#image.size > CFG_SPACE_SIZE) this.#defineExtendedChain(emulation);
    this.power?.define(emulation);
    this.msi?.define(emulation);
    this.msix?.define(emulation);
  }

  #defineChain(emulation: Emulation): void {
    const hidden = this.#hiddenMsi;
    const visible = this.capabilities.filter(({ offset }) => offset !== hidden?.offset);
    const first = visible[0]?.offset ?? 0;
    emulation.define({
      offset: STATUS,
      length: 2,
      value: first === 0 ? 0 : STATUS_CAP_LIST,
      emulated: STATUS_CAP_LIST,
    });
    emulation.define({ offset: CAPABILITY_LIST, length: 1, value: first, emulated: 0xff });
    if (hidden !== undefined) emulation.hide(hidden.offset, hidden.length);
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
    for (const { offset, length } of hidden) emulation.hide(offset, length);
    // What begins within hidden bytes is hidden as well: its registers may be those of the hidden capability.
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
    // The chain begins here, whatever is here: in the place of a hidden one a capability that says nothing leads on, and
    // all of it 0 says that there is none.
    if (visible[0]?.offset !== CFG_SPACE_SIZE) link(CFG_SPACE_SIZE, 0, visible[0]);
    for (const [index, { offset }] of visible.entries()) {
      link(offset, this.#image.u32(offset) & 0xfffff, visible[index + 1]);
    }
  }

  #only(wanted: number): Capability | undefined {
    const [first, second] = this.capabilities.filter(({ id }) => id === wanted);
    if (second !== undefined) {
      throw this.#image.bad(second.offset, `it is the second capability of type 0x${wanted.toString(16)}`);
    }
    return first;
  }

  #requireSound(): void {
    const image = this.#image;
    const conventional = this.capabilities.map((found) => ({
      offset: found.offset,
      length: leastLength(image, found),
    }));
    for (const each of conventional) requireWithin(image, each, CFG_SPACE_SIZE);
    requireApart(image, conventional);
    for (const found of this.#extended) {
      const length = hiddenLength(image, found) ?? EXT_CAP_SIZEOF;
      requireWithin(image, { offset: found.offset, length }, CFG_SPACE_EXP_SIZE);
    }
  }
}

/** A guest gets no part of a chain that is broken. @throws {PeerDmaError} `ERR_BAD_CONFIG_SPACE` */
function wholeChain({ found, problem }: Chain): readonly Capability[] {
  if (problem !== undefined) throw problem;
  return found;
}

/** Whether a capability passes the end of a config space that the host has shortened: the guest doesn't see it then. */
function isCut(image: ConfigImage, capability: Capability): boolean {
  return image.size < CFG_SPACE_SIZE && capability.offset + leastLength(image, capability) > image.size;
}

/** Bytes that a capability has at least; where something is done with it, those that this is done with. @internal */
export function leastLength(image: ConfigImage, capability: Capability): number {
  switch (capability.id) {
    case CAP_ID_PM:
      return PM_SIZEOF;
    case CAP_ID_MSI:
      return msiLength(image.u16(capability.offset + MSI_FLAGS));
    case CAP_ID_MSIX:
      return MSIX_SIZEOF;
    case CAP_ID_EXP:
      return EXP_LEAST_SIZEOF;
    case CAP_ID_AF:
      return AF_SIZEOF;
    default:
      return CAP_SIZEOF;
  }
}
