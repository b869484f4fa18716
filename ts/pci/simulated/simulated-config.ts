/**
 * Config space of a simulated device as VFIO exposes it: writable bits, and the effects of writes.
 *
 * It virtualizes and drops the same writes as VFIO (Linux `vfio_pci_config.c`): Status is read-only, MSI-X is enabled
 * by connecting it, and BAR registers accept addresses without moving anything. All registers that are not named below
 * are read-only.
 */
import type { ConfigImage } from '../config/config-image.ts';
import { type ResetBit, resetBits, resetsFunction } from '../config/function-reset.ts';
import { type MsixShape, msixShape } from '../config/msix.ts';
import { PowerManagement } from '../config/power-management.ts';
import {
  CAP_ID_EXP,
  CAP_ID_MSI,
  CAP_ID_MSIX,
  CAP_ID_PM,
  COMMAND,
  INTERRUPT_PIN,
  MSIX_FLAGS,
  MSIX_FLAGS_ENABLE,
  MSI_FLAGS,
  MSI_FLAGS_ENABLE,
  MSI_FLAGS_QMASK,
  MSI_FLAGS_QMASK_SHIFT,
  PM_CTRL,
  STATUS,
  STATUS_INTERRUPT,
} from '../config/registers.ts';
import type { InterruptKind } from '../physical-function.ts';
import type { BarLayout } from './bar-layout.ts';
import { type FoundCapabilities, PM_CTRL_NO_SOFT_RESET, findCapabilities } from './found-capabilities.ts';
import type { RegionContents } from './simulated-region.ts';
import { writableBits } from './writable-bits.ts';

const D0 = 0;
const D3_HOT = 3;

/** MSI has at most 32 messages; larger numbers are reserved. */
const MAX_MSI_LOG2 = 5;
/** @internal */
export interface ConfigListener {
  /** Whether a kind is connected, and so enabled. */
  isConnected(kind: 'msi' | 'msix'): boolean;
  /** Whether the function asserts its pin. */
  isPinAsserted(): boolean;
  /** Called when the function resets itself: by a guest request, or on the transition from D3hot. */
  onReset(): void;
  /** Called when Command or the power state has changed. */
  onChange(): void;
}

/** @internal */
export class SimulatedConfig implements RegionContents {
  readonly isMemory = true;
  /** Location of the MSI-X structures; `undefined` without MSI-X. */
  readonly msix: MsixShape | undefined;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #writable: DataView;
  readonly #capabilities: FoundCapabilities;
  readonly #power: PowerManagement | undefined;
  /** Whether the function resets itself on the transition from D3hot to D0. */
  readonly #resetsOnWaking: boolean;
  readonly #resets: readonly ResetBit[];
  readonly #listener: ConfigListener;

  /** @param image its bytes become those of the device */
  constructor(image: ConfigImage, bars: readonly BarLayout[], listener: ConfigListener) {
    const { bytes } = image;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#capabilities = findCapabilities(image);
    this.#writable = writableBits(this.#view, this.#capabilities, bars);
    const msix = this.#capabilities.get(CAP_ID_MSIX);
    this.msix = msix && msixShape(image, msix);
    const power = this.#capabilities.get(CAP_ID_PM);
    this.#power = power && new PowerManagement(image, power);
    this.#resetsOnWaking = power !== undefined && (image.u8(power.offset + PM_CTRL) & PM_CTRL_NO_SOFT_RESET) === 0;
    this.#resets = resetBits(image, this.#capabilities.values());
    this.#listener = listener;
  }

  get length(): bigint {
    return BigInt(this.#bytes.length);
  }

  isCommandSet(bit: number): boolean {
    return (this.#view.getUint16(COMMAND, true) & bit) !== 0;
  }

  get isInD0(): boolean {
    return this.#power?.isInD0(this.#bytes) ?? true;
  }

  get isInD3Hot(): boolean {
    return this.#power?.state(this.#bytes) === D3_HOT;
  }

  /** Whether config space has a way to reset the function alone (Linux `pci_reset_fn_methods`). */
  get resettable(): boolean {
    return this.#resets.length > 0 || this.#resetsOnWaking;
  }

  /** Number of vectors of each kind. */
  get vectors(): Record<InterruptKind, number> {
    const msi = this.#capabilities.get(CAP_ID_MSI)?.offset;
    const messages =
      msi === undefined ? 0 : (this.#view.getUint16(msi + MSI_FLAGS, true) & MSI_FLAGS_QMASK) >> MSI_FLAGS_QMASK_SHIFT;
    return {
      intx: this.#view.getUint8(INTERRUPT_PIN) === 0 ? 0 : 1,
      msi: msi === undefined ? 0 : 1 << Math.min(messages, MAX_MSI_LOG2),
      msix: this.msix?.vectors ?? 0,
      error: this.#capabilities.has(CAP_ID_EXP) ? 1 : 0,
      request: 1,
    };
  }

  /** Puts the function into D0, as VFIO does after a reset; it restores all other registers. */
  wake(): void {
    this.#power?.setState(this.#bytes, D0);
  }

  read(offset: bigint, length: number): Uint8Array {
    this.#setBit(STATUS, STATUS_INTERRUPT, this.#listener.isPinAsserted());
    this.#setEnabledBit(CAP_ID_MSI, MSI_FLAGS, MSI_FLAGS_ENABLE, this.#listener.isConnected('msi'));
    this.#setEnabledBit(CAP_ID_MSIX, MSIX_FLAGS, MSIX_FLAGS_ENABLE, this.#listener.isConnected('msix'));
    return this.#bytes.slice(Number(offset), Number(offset) + length);
  }

  write(offset: bigint, bytes: Uint8Array): void {
    const start = Number(offset);
    const before = this.#power?.state(this.#bytes) ?? D0;
    for (const [index, byte] of bytes.entries()) {
      const at = start + index;
      const writable = this.#writable.getUint8(at);
      this.#view.setUint8(at, (this.#view.getUint8(at) & ~writable) | (byte & writable));
    }
    this.#setPowerState(before);
    if (resetsFunction(this.#resets, start, bytes)) {
      this.wake();
      this.#listener.onReset();
    }
    this.#listener.onChange();
  }

  /** Returns all bytes, for a migration. */
  save(): Uint8Array {
    return this.#bytes.slice();
  }

  /** Restores what {@link SimulatedConfig.save} returned in a device of the same options. */
  load(bytes: Uint8Array): void {
    if (bytes.length !== this.#bytes.length) throw new RangeError(`config space has ${this.#bytes.length} bytes`);
    this.#bytes.set(bytes);
    this.#listener.onChange();
  }

  /** Applies a written power state, if the transition is supported. */
  #setPowerState(before: number): void {
    const power = this.#power;
    if (power === undefined) return;
    const taken = power.nextState(before, power.state(this.#bytes));
    power.setState(this.#bytes, taken);
    // The function has reset itself, and VFIO has restored config space.
    if (before === D3_HOT && taken === D0 && this.#resetsOnWaking) this.#listener.onReset();
  }

  #setEnabledBit(id: number, flags: number, bit: number, enabled: boolean): void {
    const capability = this.#capabilities.get(id);
    if (capability !== undefined) this.#setBit(capability.offset + flags, bit, enabled);
  }

  /** Sets or clears a bit in a register of 2 bytes. */
  #setBit(register: number, bit: number, isSet: boolean): void {
    const value = this.#view.getUint16(register, true);
    this.#view.setUint16(register, isSet ? value | bit : value & ~bit, true);
  }
}
