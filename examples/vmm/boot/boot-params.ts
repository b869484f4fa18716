/**
 * The boot parameters: a page for the kernel (Linux, arch/x86/include/uapi/asm/bootparam.h).
 */
import type { AddressRange } from 'peerdma';
import { COMMAND_LINE, HIGH_MEMORY, LOW_MEMORY_END } from './layout.ts';

/** The contents of the page. */
export interface BootParams {
  /** The setup header of the kernel's file. */
  readonly header: Uint8Array;
  readonly initrd: AddressRange | undefined;
  readonly ram: readonly AddressRange[];
  readonly reserved: readonly AddressRange[];
  /** The guest-physical address of the root of the ACPI tables. */
  readonly rsdp: bigint;
}

const PAGE = 4096;

/** Offsets in the page. */
const RSDP = 0x070;
const MAP_ENTRIES = 0x1e8;
const SETUP_HEADER = 0x1f1;
const LOADER_TYPE = 0x210;
const INITRD_ADDRESS = 0x218;
const INITRD_SIZE = 0x21c;
const COMMAND_LINE_ADDRESS = 0x228;
const MAP = 0x2d0;

/** A loader without an assigned number. */
const OTHER_LOADER = 0xff;

/** The memory map, e820. */
const ENTRY_LENGTH = 20;
const MAX_ENTRIES = 128;
const USABLE = 1;
const RESERVED = 2;

/** Returns the page. @throws {Error} if there are too many ranges of memory */
export function bootParams(params: BootParams): Uint8Array {
  const { header, initrd, rsdp } = params;
  const page = new Uint8Array(PAGE);
  const view = new DataView(page.buffer);
  page.set(header, SETUP_HEADER);
  view.setBigUint64(RSDP, rsdp, true);
  view.setUint8(LOADER_TYPE, OTHER_LOADER);
  view.setUint32(INITRD_ADDRESS, Number(initrd?.start ?? 0n), true);
  view.setUint32(INITRD_SIZE, Number(initrd?.length ?? 0n), true);
  view.setUint32(COMMAND_LINE_ADDRESS, Number(COMMAND_LINE), true);
  const map = memoryMap(params);
  if (map.length > MAX_ENTRIES) throw new Error(`the memory map has ${map.length} ranges, more than ${MAX_ENTRIES}`);
  view.setUint8(MAP_ENTRIES, map.length);
  for (const [index, { start, end, type }] of map.entries()) {
    const at = MAP + index * ENTRY_LENGTH;
    view.setBigUint64(at, start, true);
    view.setBigUint64(at + 8, end - start, true);
    view.setUint32(at + 16, type, true);
  }
  return page;
}

/** RAM without the hole below 1 MiB, which is reserved. */
function memoryMap({ ram, reserved }: BootParams): { start: bigint; end: bigint; type: number }[] {
  const hole = { start: LOW_MEMORY_END, end: HIGH_MEMORY };
  const usable = ram.flatMap(({ start, end }) => [
    { start, end: end < hole.start ? end : hole.start },
    { start: start > hole.end ? start : hole.end, end },
  ]);
  return [
    ...usable.filter(({ start, end }) => start < end).map(({ start, end }) => ({ start, end, type: USABLE })),
    ...[hole, ...reserved].map(({ start, end }) => ({ start, end, type: RESERVED })),
  ].toSorted((a, b) => (a.start < b.start ? -1 : 1));
}
