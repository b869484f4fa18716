/**
 * Interrupts of a made-up device, and how its guest sets them up.
 */
import type { ExecutionContext } from 'ava';
import type { InterruptControl } from '../../../../ts/pci/config/interrupt-control.ts';
import { AssignedInterrupts } from '../../../../ts/pci/interrupts/assigned-interrupts.ts';
import type { InterruptVector } from '../../../../ts/pci/interrupts/vector.ts';
import type { InterruptKind } from '../../../../ts/pci/physical-function.ts';
import { StrictInterrupts } from './strict-interrupts.ts';

/** Nothing enabled. */
export const OFF: InterruptControl = { intxDisabled: false, msi: undefined, msix: undefined };

export function msix(masked = false): InterruptControl {
  return { ...OFF, msix: { enabled: true, masked } };
}

export function msi(more: Partial<NonNullable<InterruptControl['msi']>> = {}): InterruptControl {
  return { ...OFF, msi: { enabled: true, vectors: 1, address: 0xfee0_0000n, data: 0, masks: 0, ...more } };
}

export interface Setup {
  readonly device: StrictInterrupts;
  readonly interrupts: AssignedInterrupts;
}

export function interruptsOf(device: StrictInterrupts, msixVectors: number): AssignedInterrupts {
  return new AssignedInterrupts(device, {
    bdf: '0000:03:00.0',
    msixVectors,
    readPending: (offset, length) => device.readPending(offset, length),
  });
}

/** Closed when the test ends. */
export function setup(t: ExecutionContext, counts: Partial<Record<InterruptKind, number>>): Setup {
  const device = new StrictInterrupts(counts);
  const interrupts = interruptsOf(device, counts.msix ?? 0);
  t.teardown(() => {
    device.failNever();
    interrupts.close();
  });
  return { device, interrupts };
}

/** Little-endian. */
export function bytes(value: bigint, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => Number((value >> BigInt(8 * index)) & 0xffn));
}

/** Little-endian. */
export function number(read: Uint8Array): bigint {
  return read.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
}

/** Masks or unmasks an entry of the table. */
export function mask(interrupts: AssignedInterrupts, entry: number, masked: boolean): void {
  interrupts.writeTable(entry * 16 + 12, bytes(masked ? 1n : 0n, 4));
}

/** How many interrupts have come for the VMM since it was last asked. */
export function delivered(vector: InterruptVector): bigint {
  return vector.event.take();
}
