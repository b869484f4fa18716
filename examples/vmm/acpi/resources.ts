/**
 * Resources of devices: the descriptors in `_CRS` (ACPI 6.5, 6.4).
 */
import type { AddressRange } from 'peerdma';
import { buffer } from './aml.ts';
import { type Bytes, u16, u32, u64, u8 } from './bytes.ts';

/** Tags of descriptors. */
const PORTS = 0x47;
const END = 0x79;
const DOUBLE_WORD_SPACE = 0x87;
const WORD_SPACE = 0x88;
const INTERRUPT = 0x89;
const QUAD_WORD_SPACE = 0x8a;

/** Kinds of address spaces. */
const MEMORY = 0;
const BUSES = 2;
/** Flags: for the device itself, not for devices behind it; the first and the last address are fixed. */
const CONSUMER = 1 << 0;
const FIXED = (1 << 2) | (1 << 3);
/** Flags without others: memory is not cacheable, and interrupts are active high. */
const READ_WRITE = 1 << 0;
const EDGE = 1 << 1;
const DECODES_16_BITS = 1;

/** The value of `_CRS`. */
export function resources(...descriptors: readonly Bytes[]): Bytes {
  return buffer([...descriptors.flat(), ...u8(END, 0)]); // a checksum of 0 is not verified
}

/** The buses of a host bridge, from 0 on. */
export function buses(last: number): Bytes {
  const [granularity, first, translation] = [0, 0, 0];
  return large(WORD_SPACE, [...u8(BUSES, FIXED, 0), ...u16(granularity, first, last, translation, last + 1)]);
}

/** Memory: a `window` of a bridge to its devices, or memory of the device `itself`. */
export function memory({ start, end, length }: AddressRange, usage: 'window' | 'itself'): Bytes {
  const flags = u8(MEMORY, FIXED | (usage === 'itself' ? CONSUMER : 0), READ_WRITE);
  const [granularity, translation] = [0n, 0n];
  const fields = [granularity, start, end - 1n, translation, length];
  return end <= 1n << 32n
    ? large(DOUBLE_WORD_SPACE, [...flags, ...u32(...fields)])
    : large(QUAD_WORD_SPACE, [...flags, ...u64(...fields)]);
}

/** Ports of the device itself. @param count 1 to 255 */
export function ports(first: number, count: number): Bytes {
  const alignment = 1;
  return [...u8(PORTS, DECODES_16_BITS), ...u16(first, first), ...u8(alignment, count)];
}

/** A line of the I/O APIC that no other device shares. Each rising edge is an interrupt, as on an ISA bus. */
export function edgeInterrupt(line: number): Bytes {
  return large(INTERRUPT, [...u8(CONSUMER | EDGE, 1), ...u32(line)]);
}

function large(tag: number, content: Bytes): Bytes {
  return [...u8(tag), ...u16(content.length), ...content];
}
