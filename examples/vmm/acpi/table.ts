/**
 * The header of all ACPI tables (ACPI 6.5, 5.2.6).
 */
import { type Bytes, ascii, checksum, u32, u8 } from './bytes.ts';

/** Names of six, eight and four characters. */
export const MANUFACTURER = 'PEERDM';
const MODEL = 'EXAMPLE ';
const CREATOR = 'PDMA';
const VERSION = 1;

export const HEADER_LENGTH = 36;
const CHECKSUM = 9;

/** Returns a table. @param signature four characters */
export function table(signature: string, revision: number, body: Bytes): Bytes {
  const bytes = [
    ...ascii(signature),
    ...u32(HEADER_LENGTH + body.length),
    ...u8(revision, 0),
    ...ascii(MANUFACTURER + MODEL),
    ...u32(VERSION),
    ...ascii(CREATOR),
    ...u32(VERSION),
    ...body,
  ];
  bytes[CHECKSUM] = checksum(bytes);
  return bytes;
}
