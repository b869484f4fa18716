/**
 * A processor in 64-bit mode, whose linear addresses below 4 GiB are the physical ones.
 */
import type { GuestMemory } from 'peerdma';
import type { CpuRegisters, VirtualCpu } from 'peerdma/kvm';
import { GDT, PAGE_TABLES } from './layout.ts';

/** Flat segments at the selectors `__BOOT_CS` and `__BOOT_DS` of Linux. */
const CODE = { base: 0n, limit: 0xffff_ffff, selector: 0x10, rights: 0xa09b };
const DATA = { base: 0n, limit: 0xffff_ffff, selector: 0x18, rights: 0xc093 };
/** The same as descriptors, from selector 0 on (Intel SDM volume 3, 3.4.5). */
const DESCRIPTORS = [0n, 0n, 0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn];

/** Paging, numeric errors, extension type, monitor, protection (Intel SDM volume 3, 2.5). */
const CR0 = 0x8000_0033n;
const CR4_PHYSICAL_ADDRESS_EXTENSION = 0x20n;
/** Long mode is enabled and active. */
const EFER = 0x500n;
/** The bit that is always set. Interrupts are disabled. */
const FLAGS = 0x2n;

/** Page tables (Intel SDM volume 3, 4.5). */
const PAGE = 0x1000n;
const LARGE_PAGE = 0x20_0000n;
const ENTRIES = 512;
const DIRECTORIES = 4;
const PRESENT_AND_WRITABLE = 0x3n;
const LARGE = 0x80n;

/** Writes page tables and segment descriptors, and sets a processor to the entry point of a kernel. */
export function enterLongMode(
  memory: GuestMemory,
  cpu: Pick<VirtualCpu, 'setRegisters'>,
  entry: Pick<CpuRegisters, 'rip' | 'rsi'>,
): void {
  memory.write(GDT, words(DESCRIPTORS));
  writePageTables(memory);
  cpu.setRegisters({
    ...entry,
    rflags: FLAGS,
    cr0: CR0,
    cr3: PAGE_TABLES,
    cr4: CR4_PHYSICAL_ADDRESS_EXTENSION,
    efer: EFER,
    gdt: { base: GDT, limit: DESCRIPTORS.length * 8 - 1 },
    idt: { base: 0n, limit: 0 },
    cs: CODE,
    ds: DATA,
    es: DATA,
    fs: DATA,
    gs: DATA,
    ss: DATA,
  });
}

/** The first entry of the top table is a table, whose first entries are directories of large pages. */
function writePageTables(memory: GuestMemory): void {
  const table = PAGE_TABLES + PAGE;
  const directories = table + PAGE;
  memory.write(PAGE_TABLES, tableOf(1, table, PAGE));
  memory.write(table, tableOf(DIRECTORIES, directories, PAGE));
  memory.write(directories, tableOf(DIRECTORIES * ENTRIES, LARGE, LARGE_PAGE));
}

/** A table of entries for one address after another. Others, up to the end of the page, are not present. */
function tableOf(count: number, first: bigint, step: bigint): Uint8Array {
  const entry = (at: number): bigint => (at < count ? (first + BigInt(at) * step) | PRESENT_AND_WRITABLE : 0n);
  return words(Array.from({ length: Math.max(count, ENTRIES) }, (_, at) => entry(at)));
}

function words(values: readonly bigint[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values).buffer);
}
