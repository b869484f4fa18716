/**
 * Page tables for 64-bit code.
 */
import { hex } from '../address-range.ts';
import { requireUnsigned } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';

const PAGE = 0x1000n;
/** Addresses in page tables have 52 bits. */
const PHYSICAL_END = 1n << 52n;

/** Entries of a page table: their number, and their bits (Intel SDM volume 3, 4.5). */
const ENTRIES = 512;
const PRESENT_AND_WRITABLE = 0x3n;
const LARGE = 0x80n;
const LARGE_PAGE = 0x20_0000n;
const DIRECTORIES = 4;

/**
 * Page tables that map the first 4 GiB to the same guest-physical addresses, in pages of 2 MiB.
 *
 * @param address guest-physical address at which they are written, a multiple of 4 KiB
 * @returns 24 KiB: the top page table, the one below it, and four of pages
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`, `ERR_UNALIGNED`
 */
export function identityPageTables(address: bigint): Uint8Array {
  requirePageTables(address, 'address', BigInt(2 + DIRECTORIES) * PAGE);
  const tables = new BigUint64Array((2 + DIRECTORIES) * ENTRIES);
  const table = address + PAGE;
  tables[0] = table | PRESENT_AND_WRITABLE;
  for (let index = 0; index < DIRECTORIES; index++) {
    tables[ENTRIES + index] = (table + BigInt(1 + index) * PAGE) | PRESENT_AND_WRITABLE;
  }
  for (let index = 0; index < DIRECTORIES * ENTRIES; index++) {
    tables[2 * ENTRIES + index] = (BigInt(index) * LARGE_PAGE) | PRESENT_AND_WRITABLE | LARGE;
  }
  return new Uint8Array(tables.buffer);
}

/** Checks the address of page tables. @param name of the parameter @param length bytes @internal */
export function requirePageTables(address: bigint, name: string, length: bigint = PAGE): void {
  requireBelow(address, name, PHYSICAL_END - length + 1n);
  if (address % PAGE === 0n) return;
  throw new PeerDmaError('ERR_UNALIGNED', `"${name}" is a multiple of 4 KiB, not ${hex(address)}`);
}

/** Checks an address. @param name of the parameter @param end the first one that is too high @internal */
export function requireBelow(address: bigint, name: string, end: bigint): void {
  requireUnsigned(address, name);
  if (address >= end) throw new PeerDmaError('ERR_OUT_OF_RANGE', `"${name}" is below ${hex(end)}, not ${hex(address)}`);
}
