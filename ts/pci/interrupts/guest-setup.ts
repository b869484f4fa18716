/**
 * What a guest has set up of its device's interrupts, by config space and the MSI-X table, and what follows from it for
 * each vector.
 */
import { PeerDmaError } from '../../errors.ts';
import type { InterruptControl } from '../config/interrupt-control.ts';
import type { InterruptKind } from '../physical-function.ts';
import type { Wish } from './connection.ts';
import { type InterruptMessage, MsixTable } from './msix-table.ts';
import { InterruptVector } from './vector.ts';
import { valueText } from '../../value-text.ts';

/** Config space after power-on. @internal */
export const POWER_ON: InterruptControl = { intxDisabled: false, msi: undefined, msix: undefined };

/** @internal */
export class GuestSetup {
  readonly #bdf: string;
  readonly #vectors: ReadonlyMap<InterruptKind, readonly InterruptVector[]>;
  readonly table: MsixTable;
  control: InterruptControl = POWER_ON;

  /**
   * @param counts vectors of each kind
   * @param onTake called when somebody wants a vector's interrupts for the first time
   */
  constructor(bdf: string, counts: Record<InterruptKind, number>, onTake: (vector: InterruptVector) => void) {
    this.#bdf = bdf;
    this.table = new MsixTable(bdf, counts.msix);
    const owner = {
      message: (vector: InterruptVector) => this.#message(vector),
      enabled: (vector: InterruptVector) => this.#enabled(vector),
      taken: onTake,
    };
    const entries = Object.entries(counts) as [InterruptKind, number][];
    this.#vectors = new Map(
      entries.map(([kind, length]) => [
        kind,
        Array.from({ length }, (_, index) => new InterruptVector(owner, kind, index)),
      ]),
    );
  }

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for what is no kind */
  vectors(kind: InterruptKind): readonly InterruptVector[] {
    const vectors = this.#vectors.get(kind);
    if (vectors !== undefined) return vectors;
    const kinds = [...this.#vectors.keys()].join(', ');
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a kind of interrupt is one of ${kinds}, not ${valueText(kind)}`, {
      device: this.#bdf,
    });
  }

  get all(): readonly InterruptVector[] {
    return [...this.#vectors.values()].flat();
  }

  /** Those that reach the guest by what it sets up. */
  get routed(): readonly InterruptVector[] {
    return this.all.filter(({ kind }) => kind !== 'error' && kind !== 'request');
  }

  /** What is to be connected, of the kinds that exclude one another. */
  wish(): Wish | undefined {
    const { msi, msix } = this.control;
    const table = this.vectors('msix');
    if (msix?.enabled === true && table.length > 0) {
      const all = msix.masked;
      return { kind: 'msix', vectors: table, isMasked: (index) => all || this.table.isMasked(index) };
    }
    const messages = this.vectors('msi').slice(0, msi?.vectors);
    if (msi?.enabled === true && messages.length > 0) {
      const { masks } = msi;
      return { kind: 'msi', vectors: messages, isMasked: (index) => ((masks >>> index) & 1) !== 0 };
    }
    // A pin that the guest has switched off stays connected: the device's Command keeps it silent, and has what is asserted
    // when it is switched on interrupt. Guests do that for each interrupt, some of them, to mask it.
    const pins = this.vectors('intx').filter(({ isTaken }) => isTaken);
    return pins.length === 0 ? undefined : { kind: 'intx', vectors: pins, isMasked: () => false };
  }

  #message({ kind, index }: InterruptVector): InterruptMessage | undefined {
    if (kind === 'msix') return this.table.message(index);
    const { msi } = this.control;
    if (kind !== 'msi' || msi === undefined || index >= msi.vectors) return undefined;
    // The device puts the vector's number in place of the lowest bits (PCI Local Bus 3.0, 6.8.1.3).
    return { address: msi.address, data: (msi.data & ~(msi.vectors - 1)) | index };
  }

  #enabled({ kind, index, isTaken }: InterruptVector): boolean {
    if (kind === 'error' || kind === 'request') return isTaken;
    const wish = this.wish();
    if (kind === 'intx' && this.control.intxDisabled) return false;
    return wish?.kind === kind && index < wish.vectors.length && !wish.isMasked(index);
  }
}

/** @internal */
export function sameControl(a: InterruptControl, b: InterruptControl): boolean {
  return (
    a.intxDisabled === b.intxDisabled &&
    a.msix?.enabled === b.msix?.enabled &&
    a.msix?.masked === b.msix?.masked &&
    a.msi?.enabled === b.msi?.enabled &&
    a.msi?.vectors === b.msi?.vectors &&
    a.msi?.address === b.msi?.address &&
    a.msi?.data === b.msi?.data &&
    a.msi?.masks === b.msi?.masks
  );
}
