/**
 * Addresses and files counted in pages, for short tests.
 */
import type { ExecutionContext } from 'ava';
import { AddressRange, GuestMemory, MemoryFile, type RamOptions } from '../../ts/index.ts';

/** The page size of every machine these tests run on (linux-x64). */
export const PAGE = 4096n;
export const PAGE_BYTES = 4096;

/** The address of a page. */
export function at(page: number): bigint {
  return BigInt(page) * PAGE;
}

/** `count` pages from page `first` on. */
export function pages(first: number, count: number): AddressRange {
  return AddressRange.of(at(first), at(count));
}

/** The byte that fills a page of a tagged file. */
export function tag(firstTag: number, page: number): number {
  return (firstTag + page) & 0xff;
}

/** A memfd in which page `n` is filled with the byte `firstTag + n`. */
export function taggedFile(t: ExecutionContext, name: string, count: number, firstTag: number): MemoryFile {
  const file = MemoryFile.create(at(count), { name });
  t.teardown(() => file.close());
  for (let page = 0; page < count; page++) {
    file.write(at(page), new Uint8Array(PAGE_BYTES).fill(tag(firstTag, page)));
  }
  return file;
}

/** Guest memory of 4 GiB of addresses, closed at the end of the test. A close that fails fails the test. */
export async function guest(
  t: ExecutionContext,
  options: { ram?: readonly RamOptions[]; addressWidth?: number } = {},
): Promise<GuestMemory> {
  const memory = await GuestMemory.create({ addressWidth: 32, ...options });
  t.teardown(() => memory.close());
  return memory;
}
