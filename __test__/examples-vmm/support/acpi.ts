/**
 * The ACPI tables of a machine, as a guest finds them: from the root pointer on.
 */
import { type AcpiOptions, buildAcpi } from '../../../examples/vmm/acpi/tables.ts';
import { AddressRange } from '../../../ts/index.ts';

export const MACHINE: AcpiOptions = {
  address: 0xe_0000n,
  cpus: 2,
  ecam: AddressRange.of(0xe000_0000n, 16n << 20n),
  windows: [AddressRange.of(0xc000_0000n, 0x1000_0000n), AddressRange.of(1n << 40n, 1n << 36n)],
  serial: { port: 0x3f8, line: 4 },
  power: { sleepControl: 0x600, sleepStatus: 0x601, reset: 0x602 },
};

/** The tables of a guest. */
export interface GuestTables {
  /** The root pointer. */
  readonly rsdp: Uint8Array;
  /** By signature. */
  readonly tables: ReadonlyMap<string, Uint8Array>;
  /** Guest-physical addresses, by signature. */
  readonly addresses: ReadonlyMap<string, bigint>;
}

/** Builds tables, and follows their addresses. */
export function guestTables(options: Partial<AcpiOptions> = {}): GuestTables {
  const { address, ...machine } = { ...MACHINE, ...options };
  const { tables: bytes, rsdp: root } = buildAcpi({ address, ...machine });
  const tables = new Map<string, Uint8Array>();
  const addresses = new Map<string, bigint>();
  const at = (gpa: bigint): Uint8Array => bytes.subarray(Number(gpa - address));
  const visit = (gpa: bigint): DataView => {
    const length = viewOf(at(gpa)).getUint32(4, true);
    const table = at(gpa).subarray(0, length);
    const signature = new TextDecoder().decode(table.subarray(0, 4));
    if (table.length !== length || tables.has(signature)) throw new Error(`${signature} is wrong`);
    tables.set(signature, table);
    addresses.set(signature, gpa);
    return viewOf(table);
  };
  const rsdp = at(root).subarray(0, 36);
  const list = visit(viewOf(rsdp).getBigUint64(24, true));
  for (let offset = 36; offset < list.byteLength; offset += 8) visit(list.getBigUint64(offset, true));
  visit(viewOf(tables.get('FACP') ?? new Uint8Array()).getBigUint64(140, true));
  return { rsdp, tables, addresses };
}

export function viewOf({ buffer, byteOffset, byteLength }: Uint8Array): DataView {
  return new DataView(buffer, byteOffset, byteLength);
}
