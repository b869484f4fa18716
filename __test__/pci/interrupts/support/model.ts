/**
 * A naive model of a device's interrupts, for guest and VMM.
 *
 * It has one pending bit and one count for each vector, and the bytes of the table.
 */
import type { InterruptControl } from '../../../../ts/pci/config/interrupt-control.ts';
import { OFF } from './guest.ts';

export type Routed = 'intx' | 'msi' | 'msix';

interface ModelVector {
  pending: boolean;
  delivered: bigint;
}

export class InterruptModel {
  control: InterruptControl = OFF;
  pinTaken = false;
  readonly table: number[];
  readonly vectors: Record<Routed, ModelVector[]>;

  constructor(counts: Record<Routed, number>) {
    const some = (length: number): ModelVector[] => Array.from({ length }, () => ({ pending: false, delivered: 0n }));
    this.vectors = { intx: some(counts.intx), msi: some(counts.msi), msix: some(counts.msix) };
    this.table = Array.from({ length: counts.msix * 16 }, () => 0);
    this.#masksAll();
  }

  /** Returns the active kind. */
  get kind(): Routed | undefined {
    if (this.control.msix?.enabled === true) return 'msix';
    if (this.control.msi?.enabled === true) return 'msi';
    return this.pinTaken && !this.control.intxDisabled ? 'intx' : undefined;
  }

  reaches(kind: Routed, index: number): boolean {
    return this.kind === kind && (kind !== 'msi' || index < (this.control.msi?.vectors ?? 0));
  }

  masked(kind: Routed, index: number): boolean {
    if (kind === 'intx') return false;
    if (kind === 'msi') return (((this.control.msi?.masks ?? 0) >> index) & 1) === 1;
    return this.control.msix?.masked === true || this.table[index * 16 + 12] === 1;
  }

  enabled(kind: Routed, index: number): boolean {
    return this.reaches(kind, index) && !this.masked(kind, index);
  }

  message(kind: Routed, index: number): { address: bigint; data: number } | undefined {
    if (kind === 'msix') {
      const word = (at: number): bigint =>
        [0, 1, 2, 3].reduce(
          (sum, byte) => sum + (BigInt(this.table[index * 16 + at + byte] ?? 0) << BigInt(8 * byte)),
          0n,
        );
      return { address: word(0) + (word(4) << 32n), data: Number(word(8)) };
    }
    const { msi } = this.control;
    if (kind === 'intx' || msi === undefined || index >= msi.vectors) return undefined;
    return { address: msi.address, data: msi.data - (msi.data % msi.vectors) + index };
  }

  raise(kind: Routed, index: number): void {
    const vector = this.vectors[kind][index];
    if (vector === undefined || !this.reaches(kind, index)) return;
    if (this.masked(kind, index)) vector.pending = true;
    else vector.delivered++;
  }

  write(offset: number, bytes: Uint8Array): void {
    for (const [index, byte] of bytes.entries()) {
      const at = offset + index;
      const within = at % 16;
      this.table[at] = within === 0 ? byte - (byte % 4) : within < 12 ? byte : within === 12 ? byte % 2 : 0;
    }
    this.settle();
  }

  /** Clears the pending bits of a disabled kind. */
  configure(control: InterruptControl): void {
    for (const kind of ['msi', 'msix'] as const) {
      if (this.control[kind]?.enabled !== true || control[kind]?.enabled === true) continue;
      for (const vector of this.vectors[kind]) vector.pending = false;
    }
    this.control = control;
  }

  reset(): void {
    this.control = OFF;
    this.table.fill(0);
    this.#masksAll();
    for (const kind of ['msi', 'msix'] as const) for (const vector of this.vectors[kind]) vector.pending = false;
  }

  /** Delivers each pending and unmasked vector as one message. */
  settle(): void {
    for (const kind of ['msi', 'msix'] as const) {
      for (const [index, vector] of this.vectors[kind].entries()) {
        if (!vector.pending || !this.enabled(kind, index)) continue;
        vector.pending = false;
        vector.delivered++;
      }
    }
  }

  pendingBits(kind: 'msi' | 'msix'): bigint {
    return this.vectors[kind].reduce((bits, { pending }, index) => bits | (pending ? 1n << BigInt(index) : 0n), 0n);
  }

  #masksAll(): void {
    for (let at = 12; at < this.table.length; at += 16) this.table[at] = 1;
  }
}
