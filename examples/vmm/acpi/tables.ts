/**
 * The ACPI tables of a guest, one after another.
 */
import { type Bytes, u64, zeros } from './bytes.ts';
import { type DsdtOptions, dsdt } from './dsdt.ts';
import { type PowerPorts, fadt } from './fadt.ts';
import { madt } from './madt.ts';
import { mcfg } from './mcfg.ts';
import { RSDP_LENGTH, rsdp } from './rsdp.ts';
import { table } from './table.ts';

/** Options of {@link buildAcpi}. */
export interface AcpiOptions extends DsdtOptions {
  /** The guest-physical address of the tables, a multiple of 16. The guest must not use that RAM otherwise. */
  readonly address: bigint;
  readonly power: PowerPorts;
}

const ALIGNMENT = 16;

/**
 * Builds the tables of a machine.
 *
 * @returns the bytes for the address, and the address of their root
 * @throws {Error} for an ECAM without whole buses, and too many processors
 */
export function buildAcpi({ address, power, ...machine }: AcpiOptions): { tables: Uint8Array; rsdp: bigint } {
  const bytes = [...zeros(RSDP_LENGTH)]; // the root is written when the addresses of the others are known
  const append = (part: Bytes): bigint => {
    bytes.push(...zeros(-bytes.length & (ALIGNMENT - 1)));
    const at = address + BigInt(bytes.length);
    bytes.push(...part);
    return at;
  };
  const system = append(dsdt(machine));
  const tables = [fadt(system, power), madt(machine.cpus), mcfg(machine.ecam)].map(append);
  bytes.splice(0, RSDP_LENGTH, ...rsdp(append(table('XSDT', 1, u64(...tables)))));
  return { tables: Uint8Array.from(bytes), rsdp: address };
}
