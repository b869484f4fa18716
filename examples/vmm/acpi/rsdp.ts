/**
 * The RSDP, the root of the tables (ACPI 6.5, 5.2.5).
 */
import { type Bytes, ascii, checksum, u32, u64, u8, zeros } from './bytes.ts';
import { MANUFACTURER } from './table.ts';

export const RSDP_LENGTH = 36;
const RSDP_REVISION = 2;
/** The length of the first version of the structure, which has a checksum of its own. */
const FIRST_LENGTH = 20;
const CHECKSUM = 8;
const EXTENDED_CHECKSUM = 32;

/** @param xsdt guest-physical address of the list of tables */
export function rsdp(xsdt: bigint): Bytes {
  const bytes = [
    ...ascii(`RSD PTR \0${MANUFACTURER}`),
    ...u8(RSDP_REVISION),
    ...u32(0, RSDP_LENGTH),
    ...u64(xsdt),
    ...zeros(4),
  ];
  bytes[CHECKSUM] = checksum(bytes.slice(0, FIRST_LENGTH));
  bytes[EXTENDED_CHECKSUM] = checksum(bytes);
  return bytes;
}
