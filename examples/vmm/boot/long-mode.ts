/**
 * A processor in 64-bit mode, whose linear addresses below 4 GiB are the physical ones.
 */
import type { GuestMemory } from 'peerdma';
import { type CpuRegisters, type VirtualCpu, identityPageTables, longModeAt } from 'peerdma/kvm';
import { GDT, PAGE_TABLES } from './layout.ts';

/** Flat segments for code and data, at the selectors of {@link longModeAt} (Intel SDM volume 3, 3.4.5). */
const DESCRIPTORS = [0n, 0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn];

/** Writes page tables and segment descriptors, and sets a processor to the entry point of a kernel. */
export function enterLongMode(
  memory: GuestMemory,
  cpu: Pick<VirtualCpu, 'setRegisters'>,
  { rip, rsi }: Pick<CpuRegisters, 'rip' | 'rsi'>,
): void {
  const descriptors = BigUint64Array.from(DESCRIPTORS);
  memory.write(GDT, new Uint8Array(descriptors.buffer));
  memory.write(PAGE_TABLES, identityPageTables(PAGE_TABLES));
  cpu.setRegisters({
    ...longModeAt(rip, PAGE_TABLES),
    rsi,
    gdt: { base: GDT, limit: descriptors.byteLength - 1 },
    idt: { base: 0n, limit: 0 },
  });
}
