/**
 * Config space of a simulated device as VFIO shows it: which bits can be written, and what writing them does. What VFIO
 * virtualizes or drops (Linux `vfio_pci_config.c`), it does here too: Status can't be written, MSI-X is switched by
 * connecting it, and the BARs' registers take addresses without moving anything. Outside of the registers named below
 * all is read-only.
 */
import {
  AF_CAP,
  AF_CAP_FLR,
  AF_CTRL,
  AF_CTRL_FLR,
  CAP_ID_AF,
  CAP_ID_EXP,
  CAP_ID_MSI,
  CAP_ID_MSIX,
  CAP_ID_PM,
  COMMAND,
  EXP_DEVCAP,
  EXP_DEVCAP_FLR,
  EXP_DEVCTL,
  EXP_DEVCTL_BCR_FLR,
  INTERRUPT_PIN,
  MSIX_FLAGS,
  MSIX_FLAGS_ENABLE,
  MSIX_FLAGS_QSIZE,
  MSI_FLAGS,
  MSI_FLAGS_ENABLE,
  MSI_FLAGS_QMASK,
  MSI_FLAGS_QMASK_SHIFT,
  PM_CAP_D1,
  PM_CAP_D2,
  PM_CTRL,
  PM_CTRL_STATE_MASK,
  PM_PMC,
} from '../config/registers.ts';
import type { InterruptKind } from '../physical-function.ts';
import type { BarLayout } from './bar-layout.ts';
import { type FoundCapabilities, PM_CTRL_NO_SOFT_RESET, findCapabilities } from './found-capabilities.ts';
import type { RegionContents } from './simulated-region.ts';
import { writableBits } from './writable-bits.ts';

const D0 = 0;
const D1 = 1;
const D2 = 2;
const D3_HOT = 3;

/** 32 messages are the most that MSI has; larger numbers are reserved. */
const MOST_MSI_LOG2 = 5;
/** @internal */
export interface ConfigListener {
  /** Of the two switched on by being connected. */
  isConnected(kind: 'msi' | 'msix'): boolean;
  /** The function resets itself: it was asked to, or woke up from D3hot. */
  onReset(): void;
  /** Command or the power state has changed. */
  onChange(): void;
}

/** @internal */
export class SimulatedConfig implements RegionContents {
  readonly isMemory = true;
  readonly #bytes: DataView;
  readonly #writable: DataView;
  readonly #capabilities: FoundCapabilities;
  readonly #listener: ConfigListener;

  constructor(bytes: DataView, bars: readonly BarLayout[], listener: ConfigListener) {
    this.#bytes = bytes;
    this.#capabilities = findCapabilities(bytes);
    this.#writable = writableBits(bytes, this.#capabilities, bars);
    this.#listener = listener;
  }

  get length(): bigint {
    return BigInt(this.#bytes.byteLength);
  }

  capability(id: number): number | undefined {
    return this.#capabilities.get(id);
  }

  commands(bit: number): boolean {
    return (this.#bytes.getUint16(COMMAND, true) & bit) !== 0;
  }

  get awake(): boolean {
    return this.#powerState === D0;
  }

  get inD3(): boolean {
    return this.#powerState === D3_HOT;
  }

  /** Whether config space says how to reset the function alone (Linux `pci_reset_fn_methods`). */
  get resettable(): boolean {
    return this.#hasFlr || this.#hasAfFlr || (this.#capabilities.has(CAP_ID_PM) && !this.#keepsRegisters);
  }

  /** How many vectors of each kind there are. */
  get vectors(): Record<InterruptKind, number> {
    const [msi, msix] = [this.capability(CAP_ID_MSI), this.capability(CAP_ID_MSIX)];
    const messages =
      msi === undefined ? 0 : (this.#bytes.getUint16(msi + MSI_FLAGS, true) & MSI_FLAGS_QMASK) >> MSI_FLAGS_QMASK_SHIFT;
    return {
      intx: this.#bytes.getUint8(INTERRUPT_PIN) === 0 ? 0 : 1,
      msi: msi === undefined ? 0 : 1 << Math.min(messages, MOST_MSI_LOG2),
      msix: msix === undefined ? 0 : (this.#bytes.getUint16(msix + MSIX_FLAGS, true) & MSIX_FLAGS_QSIZE) + 1,
      error: this.#capabilities.has(CAP_ID_EXP) ? 1 : 0,
      request: 1,
    };
  }

  /** VFIO leaves a function in D0 when it has reset it; all else is restored. */
  wake(): void {
    const pm = this.capability(CAP_ID_PM);
    if (pm !== undefined) this.#bytes.setUint8(pm + PM_CTRL, this.#bytes.getUint8(pm + PM_CTRL) & ~PM_CTRL_STATE_MASK);
  }

  read(offset: bigint, length: number): Uint8Array {
    this.#showEnabled(CAP_ID_MSI, MSI_FLAGS, MSI_FLAGS_ENABLE, this.#listener.isConnected('msi'));
    this.#showEnabled(CAP_ID_MSIX, MSIX_FLAGS, MSIX_FLAGS_ENABLE, this.#listener.isConnected('msix'));
    const { buffer } = this.#bytes;
    return new Uint8Array(buffer, Number(offset), length).slice();
  }

  write(offset: bigint, bytes: Uint8Array): void {
    const start = Number(offset);
    const before = this.#powerState;
    for (const [index, byte] of bytes.entries()) {
      const at = start + index;
      const writable = this.#writable.getUint8(at);
      this.#bytes.setUint8(at, (this.#bytes.getUint8(at) & ~writable) | (byte & writable));
    }
    const written = (at: number): number => bytes[at - start] ?? 0;
    this.#setPowerState(before);
    const [exp, af] = [this.capability(CAP_ID_EXP), this.capability(CAP_ID_AF)];
    const flr = EXP_DEVCTL_BCR_FLR >> 8;
    const asked =
      (this.#hasFlr && exp !== undefined && (written(exp + EXP_DEVCTL + 1) & flr) !== 0) ||
      (this.#hasAfFlr && af !== undefined && (written(af + AF_CTRL) & AF_CTRL_FLR) !== 0);
    if (asked) {
      this.wake();
      this.#listener.onReset();
    }
    this.#listener.onChange();
  }

  get #powerState(): number {
    const pm = this.capability(CAP_ID_PM);
    return pm === undefined ? D0 : this.#bytes.getUint8(pm + PM_CTRL) & PM_CTRL_STATE_MASK;
  }

  get #keepsRegisters(): boolean {
    const pm = this.capability(CAP_ID_PM);
    return pm === undefined || (this.#bytes.getUint8(pm + PM_CTRL) & PM_CTRL_NO_SOFT_RESET) !== 0;
  }

  get #hasFlr(): boolean {
    const exp = this.capability(CAP_ID_EXP);
    return exp !== undefined && (this.#bytes.getUint32(exp + EXP_DEVCAP, true) & EXP_DEVCAP_FLR) !== 0;
  }

  get #hasAfFlr(): boolean {
    const af = this.capability(CAP_ID_AF);
    return af !== undefined && (this.#bytes.getUint8(af + AF_CAP) & AF_CAP_FLR) !== 0;
  }

  /** What was written of the power state is checked: one that the function does not have is not taken. */
  #setPowerState(before: number): void {
    const pm = this.capability(CAP_ID_PM);
    const wanted = this.#powerState;
    if (pm === undefined || wanted === before) return;
    const can = this.#bytes.getUint16(pm + PM_PMC, true);
    const missing = (wanted === D1 && (can & PM_CAP_D1) === 0) || (wanted === D2 && (can & PM_CAP_D2) === 0);
    // From D3hot there is no way but to D0 (PCI Express Base Specification, 5.3.1.4).
    if (missing || (before === D3_HOT && wanted !== D0)) {
      const control = this.#bytes.getUint8(pm + PM_CTRL);
      this.#bytes.setUint8(pm + PM_CTRL, (control & ~PM_CTRL_STATE_MASK) | before);
      return;
    }
    // The function has reset itself, and VFIO has put config space back.
    if (before === D3_HOT && !this.#keepsRegisters) this.#listener.onReset();
  }

  #showEnabled(id: number, flags: number, bit: number, enabled: boolean): void {
    const capability = this.capability(id);
    if (capability === undefined) return;
    const at = capability + flags;
    const value = this.#bytes.getUint16(at, true);
    this.#bytes.setUint16(at, enabled ? value | bit : value & ~bit, true);
  }
}
