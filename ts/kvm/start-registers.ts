/**
 * Registers of a processor at the first instruction of a guest, in each mode of x86.
 *
 * Each result has all registers that the mode depends on, so that it holds from any state of the processor. One that
 * has halted continues, but not one that the guest has not started. Interrupts are disabled. General-purpose
 * registers, the stack included, keep their values.
 */
import { requireUnsigned } from '../arguments.ts';
import { requireBelow, requirePageTables } from './page-tables.ts';
import type { CpuRegisters, Segment } from './registers.ts';

/** Bits of CR0, CR4 and EFER (Intel SDM volume 3, 2.5 and 2.2.1). */
const PROTECTION = 0x1n;
const EXTENSION_TYPE = 0x10n;
const NUMERIC_ERROR = 0x20n;
const PAGING = 0x8000_0000n;
const PHYSICAL_ADDRESS_EXTENSION = 0x20n;
const LONG_MODE_ENABLED_AND_ACTIVE = 0x500n;
/** The flag that is always set. */
const FLAGS = 0x2n;

/** Access rights of present segments: readable code, writable data. Then size and granularity of flat ones. */
const CODE = 0x9b;
const DATA = 0x93;
const FLAT_32 = 0xc000;
const FLAT_64 = 0xa000;

/** The selectors of flat segments, as Linux requires them (Documentation/arch/x86/boot.rst). */
const CODE_SELECTOR = 0x10;
const DATA_SELECTOR = 0x18;

const MIB = 0x10_0000n;
const GIB_4 = 1n << 32n;

/**
 * Registers for 16-bit code in real mode.
 *
 * The data segments begin at 0, and the interrupt table is at 0.
 *
 * @param address guest-physical, below 1 MiB. The code segment begins at the multiple of 64 KiB below it
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`
 */
export function realModeAt(address: bigint): Partial<CpuRegisters> {
  requireBelow(address, 'address', MIB);
  const base = address & 0xf_0000n;
  const segment = { base: 0n, limit: 0xffff, selector: 0, rights: DATA };
  return {
    rip: address - base,
    rflags: FLAGS,
    cr0: EXTENSION_TYPE,
    cr4: 0n,
    efer: 0n,
    cs: { base, limit: 0xffff, selector: Number(base >> 4n), rights: CODE },
    ...dataSegments(segment),
    idt: { base: 0n, limit: 0xffff },
  };
}

/**
 * Registers for 32-bit code in protected mode without paging.
 *
 * Segments begin at 0 and have 4 GiB. Their selectors are 0x10 for code and 0x18 for data: a guest that loads a segment
 * register, or takes interrupts, sets up its descriptor tables first.
 *
 * @param address guest-physical, below 4 GiB
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`
 */
export function protectedModeAt(address: bigint): Partial<CpuRegisters> {
  requireBelow(address, 'address', GIB_4);
  return flatModeAt(address, FLAT_32, { cr0: PROTECTION | EXTENSION_TYPE, cr4: 0n, efer: 0n });
}

/**
 * Registers for 64-bit code in long mode.
 *
 * Segments are those of {@link protectedModeAt}.
 *
 * @param address linear, 64 bits
 * @param pageTables guest-physical address of the top page table, of four levels, such as that of
 * {@link identityPageTables}; a multiple of 4 KiB below 2^52
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`
 */
export function longModeAt(address: bigint, pageTables: bigint): Partial<CpuRegisters> {
  requireUnsigned(address, 'address');
  requirePageTables(pageTables, 'pageTables');
  const cr0 = PAGING | NUMERIC_ERROR | EXTENSION_TYPE | PROTECTION;
  const mode = { cr0, cr4: PHYSICAL_ADDRESS_EXTENSION, efer: LONG_MODE_ENABLED_AND_ACTIVE };
  return { ...flatModeAt(address, FLAT_64, mode), cr3: pageTables };
}

function flatModeAt(
  rip: bigint,
  size: number,
  mode: Pick<CpuRegisters, 'cr0' | 'cr4' | 'efer'>,
): Partial<CpuRegisters> {
  const flat = { base: 0n, limit: 0xffff_ffff };
  return {
    rip,
    rflags: FLAGS,
    ...mode,
    cs: { ...flat, selector: CODE_SELECTOR, rights: size | CODE },
    ...dataSegments({ ...flat, selector: DATA_SELECTOR, rights: FLAT_32 | DATA }),
  };
}

function dataSegments(segment: Segment): Pick<CpuRegisters, 'ds' | 'es' | 'fs' | 'gs' | 'ss'> {
  return { ds: segment, es: segment, fs: segment, gs: segment, ss: segment };
}
