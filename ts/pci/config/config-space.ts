/**
 * Config space of an assigned device as its guest sees it: the device's own, partly emulated.
 *
 * BARs, interrupts and host-owned registers are emulated. This module does not access the device: it computes the
 * result of a read and the effect of a write.
 */
import { PeerDmaError } from '../../errors.ts';
import { requireNumber } from '../../number-types.ts';
import { type Bar, BarRegisters } from './bar-registers.ts';
import type { AddedCapability } from './added-capabilities.ts';
import { ChainView, type VisibleCapability } from './chain-view.ts';
import { ConfigImage, at, u16 } from './config-image.ts';
import { type ConfigOverrides, defineIds } from './config-overrides.ts';
import { Emulation, type ForwardedWrite, copyOf } from './emulation.ts';
import { type ResetBit, resetBits, resetsFunction } from './function-reset.ts';
import type { InterruptControl } from './interrupt-control.ts';
import type { MsixShape } from './msix.ts';
import {
  BIST,
  CFG_SPACE_EXP_SIZE,
  CFG_SPACE_SIZE,
  COMMAND,
  COMMAND_INTX_DISABLE,
  COMMAND_IO,
  COMMAND_MEMORY,
  HEADER_TYPE,
  HEADER_TYPE_MASK,
  INTERRUPT_LINE,
  INTERRUPT_PIN,
  VENDOR_ID,
} from './registers.ts';
import { valueText } from '../../value-text.ts';

export type { Bar, BarKind } from './bar-registers.ts';
export type { BarArea, MsixShape } from './msix.ts';

/** The emulated part of config space. Immutable: a write creates another state. @internal */
export class ConfigState {
  /** The first 256 bytes. Only those that the guest can change are used. @internal */
  readonly bytes: Uint8Array;

  /** @internal */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }
}

/** The effect of a write to config space. @internal */
export interface ConfigWrite {
  /** The state after the device has received the write; the same object if nothing changes here. */
  readonly next: ConfigState;
  /** Writes for the device, in order, each as one access. */
  readonly forward: readonly ForwardedWrite[];
  /**
   * Whether the guest requests a reset of the function.
   *
   * `forward` performs it; {@link ConfigSpace.afterReset} follows.
   */
  readonly functionReset: boolean;
}

/** Options of {@link ConfigSpace}. @internal */
export interface ConfigSpaceOptions {
  /** PCI address, for messages. */
  readonly bdf: string;
  /** Config space as it was when the device was opened: 64 to 4096 bytes, a multiple of 4. */
  readonly bytes: Uint8Array;
  /** Region lengths in bytes by VFIO's index: BARs 0 to 5, then the ROM; `undefined` for absent ones. */
  readonly regionLengths: readonly (bigint | undefined)[];
  /** Addresses of pinned BARs, by VFIO's index. */
  readonly pinned?: ReadonlyMap<number, bigint>;
  /** Whether the host supports the pin. */
  readonly intx: boolean;
  /** How many MSI vectors the host supports. */
  readonly msiVectors: number;
  /** Capabilities that only the guest has, checked. Default: none */
  readonly added?: readonly AddedCapability[];
  /** Values that the guest reads instead of the device's, checked. Default: none */
  readonly overrides?: ConfigOverrides;
}

/**
 * The rules of one device's config space.
 *
 * BARs and ROM, MSI, MSI-X control, the interrupt line and the links between capabilities are emulated. Memory enable
 * is emulated and forwarded to the device. All other registers are the device's. I/O BARs, further functions, the self
 * test, SR-IOV, ARI and Resizable BAR are hidden from a guest. The VMM can add capabilities and override IDs.
 *
 * @internal
 */
export class ConfigSpace {
  /** Bytes: 256 or 4096, or fewer if the host truncates config space. */
  readonly size: number;
  /** By ascending index. */
  readonly bars: readonly Bar[];
  readonly msix: MsixShape | undefined;
  /**
   * The power-on state, in D0. BARs are without addresses (except pinned ones), memory decode and interrupts are off.
   */
  readonly initial: ConfigState;
  /**
   * Offsets of the 2-byte registers that control whether BARs decode: Command, then PMCSR if any.
   *
   * {@link ConfigSpace.readDecodeRegisters} reads them.
   */
  readonly decodeRegisters: readonly number[];
  /** Offset of PMCSR, which has the power state, if it exists. */
  readonly powerRegister: number | undefined;
  readonly #bdf: string;
  readonly #registers: BarRegisters;
  readonly #chain: ChainView;
  readonly #emulation: Emulation;
  readonly #resets: readonly ResetBit[];

  /**
   * @throws {PeerDmaError} `ERR_BAD_CONFIG_SPACE` for a device that does not respond, a bridge, broken chains of
   * capabilities, and invalid BARs or MSI-X tables; for pinned BARs `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`,
   * `ERR_UNALIGNED` and `ERR_OVERLAP`; as the constructor of {@link ChainView} for changes by the VMM
   */
  constructor(options: ConfigSpaceOptions) {
    const { bdf, bytes, regionLengths, pinned = new Map(), intx, msiVectors, added = [], overrides = {} } = options;
    const { portType } = overrides;
    const image = new ConfigImage(bdf, portType === 'conventional' ? bytes.subarray(0, CFG_SPACE_SIZE) : bytes);
    requireFunction(image);
    this.#bdf = bdf;
    this.size = image.size;
    this.#registers = new BarRegisters(image, { regionLengths, pinned });
    this.bars = this.#registers.bars;
    const memory = this.bars.filter(({ kind }) => kind !== 'rom');
    const regions = new Map(memory.map(({ index }) => [index, regionLengths[index] ?? 0n]));
    this.#chain = new ChainView(image, { regions, msiVectors, added, portType });
    this.msix = this.#chain.msix?.shape;
    this.#resets = resetBits(image, this.#chain.visible);
    const { power } = this.#chain;
    this.powerRegister = power?.register;
    this.decodeRegisters = power === undefined ? [COMMAND] : [COMMAND, power.register];

    this.#emulation = new Emulation(this.size);
    defineHeader(this.#emulation, image, intx);
    this.#registers.define(this.#emulation);
    this.#chain.define(this.#emulation);
    defineIds(this.#emulation, overrides);
    this.initial = new ConfigState(this.#emulation.initial());
  }

  /** The guest's conventional chain of capabilities, in its order. */
  get capabilities(): readonly VisibleCapability[] {
    return this.#chain.visible;
  }

  /** Offset of the guest's MSI capability, if it has one. */
  get msiOffset(): number | undefined {
    return this.#chain.msi?.offset;
  }

  /**
   * Checks an access.
   *
   * @param offset 0 to 4095: the range that a guest can address, whatever the length of config space
   * @param size 1, 2 or 4 bytes
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`
   */
  requireAccess(offset: number, size: number): void {
    const fail = (code: 'ERR_INVALID_ARGUMENT' | 'ERR_OUT_OF_RANGE', problem: string): PeerDmaError =>
      new PeerDmaError(code, `config space of ${this.#bdf} cannot be accessed: ${problem}`, {
        bdf: this.#bdf,
      });
    requireNumber(offset, 'offset', this.#bdf);
    requireNumber(size, 'size', this.#bdf);
    if (size !== 1 && size !== 2 && size !== 4) {
      throw fail(
        'ERR_INVALID_ARGUMENT',
        `an access has 1, 2 or 4 bytes, not ${valueText(size)}. Use ecamRead or ecamWrite`,
      );
    }
    if (!Number.isSafeInteger(offset) || offset < 0) {
      throw fail('ERR_INVALID_ARGUMENT', `an offset is a whole number from 0 on, not ${valueText(offset)}`);
    }
    if (offset >= CFG_SPACE_EXP_SIZE) {
      throw fail('ERR_OUT_OF_RANGE', `a function has offsets below ${at(CFG_SPACE_EXP_SIZE)}, not ${at(offset)}`);
    }
  }

  /**
   * Returns how many bytes of an access, from the first one on, are in config space. The others read as ones and are
   * not writable.
   *
   * @throws {PeerDmaError} as {@link ConfigSpace.requireAccess}
   */
  countPresentBytes(offset: number, size: number): number {
    this.requireAccess(offset, size);
    return Math.max(0, Math.min(size, this.size - offset));
  }

  /**
   * Returns the bytes that a guest reads.
   *
   * @param device the device's bytes at that offset, as many as are read
   * @param dynamic.msiPending the pending MSI vectors, one bit each
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` past the end of config space
   */
  read(
    state: ConfigState,
    offset: number,
    device: Uint8Array,
    { msiPending = 0 }: { readonly msiPending?: number } = {},
  ): Uint8Array {
    this.#requireWithin(offset, device.length);
    const bytes = this.#emulation.read(state.bytes, offset, device);
    this.#registers.patchRead(state.bytes, offset, bytes);
    this.#chain.msi?.patchPending(msiPending, offset, bytes);
    return bytes;
  }

  /**
   * Returns the effect of a guest write: the next state, and the bytes for the device.
   *
   * @param device the device's bytes at that offset, as many as are written
   * @throws {PeerDmaError} `ERR_OUT_OF_RANGE` past the end of config space
   */
  planWrite(state: ConfigState, offset: number, bytes: Uint8Array, device: Uint8Array): ConfigWrite {
    this.#requireWithin(offset, bytes.length);
    if (device.length !== bytes.length) {
      throw new PeerDmaError(
        'ERR_INVALID_ARGUMENT',
        `${device.length} bytes of the device for a write of ${bytes.length}`,
        {
          bdf: this.#bdf,
        },
      );
    }
    const written = this.#emulation.write(state.bytes, offset, bytes);
    return {
      next: this.#state(state, this.#chain.power?.applyTransition(state.bytes, written) ?? written),
      forward: this.#emulation.forward(offset, bytes, device),
      functionReset: resetsFunction(this.#resets, offset, bytes),
    };
  }

  /**
   * Returns the state after a reset of the function (FLR): MSI and MSI-X are off.
   *
   * BARs keep their addresses: the host restores those of the device, and expects that the guest's are unchanged.
   */
  afterReset(state: ConfigState): ConfigState {
    const bytes = copyOf(state.bytes);
    for (const capability of [this.#chain.msi, this.#chain.msix]) {
      if (capability === undefined) continue;
      const { offset, length } = capability;
      bytes.set(this.initial.bytes.subarray(offset, offset + length), offset);
    }
    return new ConfigState(bytes);
  }

  /**
   * Returns the state with the device's values of {@link ConfigSpace.decodeRegisters}. Used after a reset or a change
   * of its power state.
   *
   * @param read returns the device's bytes at an offset
   */
  readDecodeRegisters(state: ConfigState, read: (offset: number, length: number) => Uint8Array): ConfigState {
    let { bytes } = state;
    for (const offset of this.decodeRegisters) {
      const device = read(offset, 2);
      // A device that does not respond reads as all ones, an impossible value of Command. It decodes nothing then.
      const gone = offset === COMMAND && u16(device, 0) === 0xffff;
      // The emulated bits of these registers are the device's as well, so applying a guest write gives the right state.
      bytes = this.#emulation.write(bytes, offset, gone ? new Uint8Array(2) : device);
    }
    return this.#state(state, bytes);
  }

  /** Returns the guest addresses of the BARs that decode, by VFIO's index. */
  decoded(state: ConfigState): ReadonlyMap<number, bigint> {
    if (this.#chain.power?.isInD0(state.bytes) === false) return new Map();
    return this.#registers.decoded(state.bytes);
  }

  /** Returns the interrupt set-up of the guest. */
  control({ bytes }: ConfigState): InterruptControl {
    return {
      intxDisabled: (u16(bytes, COMMAND) & COMMAND_INTX_DISABLE) !== 0,
      msi: this.#chain.msi?.control(bytes),
      msix: this.#chain.msix?.control(bytes),
    };
  }

  #requireWithin(offset: number, length: number): void {
    if (offset + length <= this.size) return;
    const text = `${length} bytes at ${at(offset)} pass the end of config space of ${this.#bdf} at ${at(this.size)}`;
    throw new PeerDmaError('ERR_OUT_OF_RANGE', text, { bdf: this.#bdf });
  }

  #state(before: ConfigState, bytes: Uint8Array): ConfigState {
    return bytes === before.bytes ? before : new ConfigState(bytes);
  }
}

function requireFunction(image: ConfigImage): void {
  const { bdf } = image;
  if (image.u16(VENDOR_ID) === 0xffff && image.u16(COMMAND) !== 0xffff) {
    // SR-IOV 1.1, 3.4.1.1 and 3.4.1.2. VFIO reports the IDs of /sys instead (Linux `vfio_config_init`).
    const text = `${bdf} is a virtual function: its own config space has no vendor and device ID`;
    const remedy = 'Pass those of /sys as the ids of a SimulatedDevice';
    throw new PeerDmaError('ERR_BAD_CONFIG_SPACE', `${text}. ${remedy}`, { bdf });
  }
  if (image.u16(VENDOR_ID) === 0xffff)
    throw image.bad(VENDOR_ID, 'it reads as all ones: the device is gone or in D3cold');
  const type = image.u8(HEADER_TYPE) & HEADER_TYPE_MASK;
  if (type !== 0) throw image.bad(HEADER_TYPE, `the header is of type ${type}: assign a function that is not a bridge`);
}

function defineHeader(emulation: Emulation, image: ConfigImage, intx: boolean): void {
  emulation.define({
    offset: COMMAND,
    length: 2,
    emulated: COMMAND_IO | COMMAND_MEMORY,
    // INTx disable is the device's register; the bit is recorded here only for reference.
    writable: COMMAND_MEMORY | COMMAND_INTX_DISABLE,
    forwarded: ~COMMAND_IO,
  });
  // The guest has only this function, even if the device has others.
  emulation.define({
    offset: HEADER_TYPE,
    length: 1,
    value: image.u8(HEADER_TYPE) & HEADER_TYPE_MASK,
    emulated: 0xff,
  });
  emulation.defineReserved(BIST, 1);
  emulation.define({ offset: INTERRUPT_LINE, length: 1, emulated: 0xff, writable: 0xff });
  emulation.define({ offset: INTERRUPT_PIN, length: 1, value: intx ? image.u8(INTERRUPT_PIN) : 0, emulated: 0xff });
}
