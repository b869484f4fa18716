/**
 * The MCFG: the addresses of config space in memory, the ECAM (PCI Firmware Specification 3.3, 4.1.2).
 */
import type { AddressRange } from 'peerdma';
import { type Bytes, u16, u32, u64, u8, zeros } from './bytes.ts';
import { table } from './table.ts';

const BYTES_OF_BUS = 1n << 20n;
const MAX_BUSES = 256n;

export function mcfg(ecam: AddressRange): Bytes {
  const [segment, firstBus] = [0, 0];
  const entry = [...u64(ecam.start), ...u16(segment), ...u8(firstBus, lastBus(ecam)), ...u32(0)];
  return table('MCFG', 1, [...zeros(8), ...entry]);
}

/** Returns the number of the last bus. The first one is 0. @throws {Error} unless the ECAM has whole buses */
export function lastBus(ecam: AddressRange): number {
  const buses = ecam.length / BYTES_OF_BUS;
  if (ecam.length % BYTES_OF_BUS === 0n && buses <= MAX_BUSES) return Number(buses) - 1;
  throw new Error(`the ECAM ${ecam} does not have 1 MiB for each of 1 to ${MAX_BUSES} buses`);
}
