/**
 * The example VMM describes its machine by ACPI tables.
 */
import test from 'ava';
import { AddressRange } from '../../ts/index.ts';
import { MACHINE, guestTables, viewOf } from './support/acpi.ts';

const MiB = 1n << 20n;
const sum = (bytes: Uint8Array): number => bytes.reduce((all, byte) => all + byte, 0) & 0xff;

/** A table of the machine, or of one that differs from it. */
function tableOf(signature: string, options: Parameters<typeof guestTables>[0] = {}): Uint8Array {
  return guestTables(options).tables.get(signature) ?? new Uint8Array();
}

test('a guest finds all tables from the root pointer on, and the bytes of each have the sum 0', (t) => {
  const { rsdp, tables } = guestTables();
  t.deepEqual([...tables.keys()], ['XSDT', 'FACP', 'APIC', 'MCFG', 'DSDT']);
  for (const [signature, table] of tables) t.is(sum(table), 0, signature);
  t.is(new TextDecoder().decode(rsdp.subarray(0, 8)), 'RSD PTR ');
  t.is(sum(rsdp.subarray(0, 20)), 0);
  t.is(sum(rsdp), 0);
  t.is(viewOf(rsdp).getUint32(20, true), rsdp.length);
  t.deepEqual(rsdp.subarray(33), new Uint8Array(3), 'reserved');
});

test('the tables are apart, and at multiples of 16', (t) => {
  const { tables, addresses } = guestTables();
  const ranges = [...tables].map(([signature, { length }]) =>
    AddressRange.of(addresses.get(signature) ?? 0n, BigInt(length)),
  );
  ranges.push(AddressRange.of(MACHINE.address, 36n));
  const sorted = ranges.toSorted((a, b) => Number(a.start - b.start));
  for (const [index, { start, end }] of sorted.entries()) {
    t.is(start % 16n, 0n);
    t.true(end <= (sorted[index + 1]?.start ?? end));
  }
});

test('the tables have addresses above 4 GiB, too', (t) => {
  const { addresses } = guestTables({ address: 1n << 33n });
  t.is(addresses.size, 5);
});

test('each table has the length and the revision of its version of ACPI', (t) => {
  const { rsdp, tables } = guestTables();
  const revisions = [...tables].map(([signature, table]) => [signature, table[8]]);
  t.deepEqual(Object.fromEntries(revisions), { XSDT: 1, FACP: 6, APIC: 5, MCFG: 1, DSDT: 2 });
  t.is(rsdp[15], 2);
  const lengths = ['XSDT', 'FACP', 'APIC', 'MCFG'].map((signature) => tables.get(signature)?.length);
  t.deepEqual(lengths, [36 + 3 * 8, 276, 44 + 2 * 8 + 12, 36 + 8 + 16]);
});

test('the FADT describes hardware-reduced ACPI, and the ports of the power registers', (t) => {
  const fadt = viewOf(tableOf('FACP'));
  const flags = fadt.getUint32(112, true);
  t.is(flags & (1 << 20), 1 << 20, 'HW_REDUCED_ACPI');
  t.is(flags & (1 << 10), 1 << 10, 'RESET_REG_SUP');
  t.is(flags & 1, 1, 'WBINVD');
  const register = (offset: number): readonly (number | bigint)[] => [
    ...[0, 1, 2, 3].map((at) => fadt.getUint8(offset + at)),
    fadt.getBigUint64(offset + 4, true),
  ];
  t.deepEqual(register(116), [1, 8, 0, 1, 0x602n]);
  t.deepEqual(register(244), [1, 8, 0, 1, 0x600n]);
  t.deepEqual(register(256), [1, 8, 0, 1, 0x601n]);
  t.is(fadt.getUint8(128), 6, 'the value that resets');
});

test('the MADT has a local APIC for each processor, and the I/O APIC', (t) => {
  const bytes = tableOf('APIC', { cpus: 3 });
  const madt = viewOf(bytes);
  t.is(madt.getUint32(36, true), 0xfee0_0000);
  t.is(madt.getUint32(40, true), 0, 'no PICs');
  for (const id of [0, 1, 2]) {
    t.deepEqual([...bytes.subarray(44 + 8 * id, 52 + 8 * id)], [0, 8, id, id, 1, 0, 0, 0]);
  }
  t.deepEqual([...bytes.subarray(68, 80)], [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
});

test('rejects more processors than the MADT can describe', (t) => {
  t.notThrows(() => guestTables({ cpus: 255 }));
  t.throws(() => guestTables({ cpus: 256 }), { message: 'the MADT describes up to 255 processors, not 256' });
});

test('the MCFG has the address and the buses of the ECAM', (t) => {
  const bytes = tableOf('MCFG', { ecam: AddressRange.of(1n << 38n, 256n * MiB) });
  t.is(viewOf(bytes).getBigUint64(44, true), 1n << 38n);
  t.deepEqual([...bytes.subarray(52)], [0, 0, 0, 255, 0, 0, 0, 0]);
});

test('rejects an ECAM that is not 1 to 256 whole buses', (t) => {
  for (const length of [MiB / 2n, 3n * (MiB / 2n), 257n * MiB]) {
    const ecam = AddressRange.of(1n << 38n, length);
    const message = `the ECAM ${ecam} does not have 1 MiB for each of 1 to 256 buses`;
    t.throws(() => guestTables({ ecam }), { message });
  }
});

test('rejects a port that is not one', (t) => {
  t.throws(() => guestTables({ serial: { port: 0x1_0000, line: 4 } }), { instanceOf: RangeError });
});
