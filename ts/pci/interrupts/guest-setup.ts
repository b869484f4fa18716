/** The guest's interrupt set-up: config space, the MSI-X table, and the resulting state of each vector. */
import { PeerDmaError } from '../../errors.ts';
import type { InterruptControl } from '../config/interrupt-control.ts';
import type { InterruptKind } from '../physical-function.ts';
import type { DesiredConnection } from './connection.ts';
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
   * @param onFirstUse called when a vector is used for the first time
   */
  constructor(bdf: string, counts: Record<InterruptKind, number>, onFirstUse: (vector: InterruptVector) => void) {
    this.#bdf = bdf;
    this.table = new MsixTable(bdf, counts.msix);
    const owner = {
      message: (vector: InterruptVector) => this.#message(vector),
      enabled: (vector: InterruptVector) => this.#enabled(vector),
      onFirstUse,
    };
    const entries = Object.entries(counts) as [InterruptKind, number][];
    this.#vectors = new Map(
      entries.map(([kind, length]) => [
        kind,
        Array.from({ length }, (_, index) => new InterruptVector(owner, kind, index)),
      ]),
    );
  }

  /** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for an unknown kind */
  vectors(kind: InterruptKind): readonly InterruptVector[] {
    const vectors = this.#vectors.get(kind);
    if (vectors !== undefined) return vectors;
    const kinds = [...this.#vectors.keys()].join(', ');
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a kind of interrupt is one of ${kinds}, not ${valueText(kind)}`, {
      bdf: this.#bdf,
    });
  }

  get all(): readonly InterruptVector[] {
    return [...this.#vectors.values()].flat();
  }

  /** The vectors whose delivery the guest configures. */
  get routed(): readonly InterruptVector[] {
    return this.all.filter(({ kind }) => kind !== 'error' && kind !== 'request');
  }

  /** Returns the vectors to connect, of the one active kind among MSI-X, MSI and the pin. */
  desiredConnection(): DesiredConnection | undefined {
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
    // A disabled pin remains connected: the device's Command register masks it, and an asserted pin interrupts when it
    // is enabled. Some guests mask the pin this way for each interrupt.
    const pins = this.vectors('intx').filter(({ isUsed }) => isUsed);
    return pins.length === 0 ? undefined : { kind: 'intx', vectors: pins, isMasked: () => false };
  }

  #message({ kind, index }: InterruptVector): InterruptMessage | undefined {
    if (kind === 'msix') return this.table.message(index);
    const { msi } = this.control;
    if (kind !== 'msi' || msi === undefined || index >= msi.vectors) return undefined;
    // The device replaces the lowest bits with the vector's number (PCI Local Bus 3.0, 6.8.1.3).
    return { address: msi.address, data: (msi.data & ~(msi.vectors - 1)) | index };
  }

  #enabled({ kind, index, isUsed }: InterruptVector): boolean {
    if (kind === 'error' || kind === 'request') return isUsed;
    const desired = this.desiredConnection();
    if (kind === 'intx' && this.control.intxDisabled) return false;
    return desired?.kind === kind && index < desired.vectors.length && !desired.isMasked(index);
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
