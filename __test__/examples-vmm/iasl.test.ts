/**
 * The ACPI tables of the example VMM, disassembled by Intel's compiler. Without it, the tests are skipped.
 */
import anyTest, { type ExecutionContext, type TestFn } from 'ava';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { AddressRange } from '../../ts/index.ts';
import { scratchFolder } from '../support/scratch.ts';
import { guestTables } from './support/acpi.ts';

/** The table, and its disassembly with single spaces and without comments. */
interface Disassembled {
  readonly folder: string;
  readonly table: Uint8Array;
  readonly text: string;
}

function iasl(folder: string, ...args: readonly string[]): { status: number | null; stdout: string; stderr: string } {
  return spawnSync('iasl', args, { cwd: folder, encoding: 'utf8' });
}

function iaslTest(title: string, act: (t: ExecutionContext) => void): void {
  const test: TestFn = anyTest;
  if (spawnSync('iasl', ['-v']).status === 0) test(title, act);
  else test.skip(`${title} (needs iasl: apt-get install acpica-tools)`, () => {});
}

function disassemble(
  t: ExecutionContext,
  signature: string,
  options?: Parameters<typeof guestTables>[0],
): Disassembled {
  const folder = scratchFolder(t);
  const table = guestTables(options).tables.get(signature) ?? new Uint8Array();
  writeFileSync(join(folder, 'table.aml'), table);
  const { status, stdout, stderr } = iasl(folder, '-d', 'table.aml');
  t.is(status, 0, stderr);
  t.notRegex(stdout + stderr, /error|warning|invalid|incorrect/i);
  const text = readFileSync(join(folder, 'table.dsl'), 'utf8');
  return { folder, table, text: text.replaceAll(/\/\*[^]*?\*\/|\/\/.*$/gm, '').replaceAll(/\s+/g, ' ') };
}

/** Fails unless the disassembly has all parts, in this order. */
function hasParts(t: ExecutionContext, text: string, parts: readonly string[]): void {
  let from = 0;
  for (const part of parts) {
    const at = text.indexOf(part, from);
    t.true(at >= 0, `${part} is not in ${text.slice(from)}`);
    from = at + part.length;
  }
}

iaslTest('iasl compiles the disassembled DSDT to the same bytes, without warnings', (t) => {
  const { folder, table } = disassemble(t, 'DSDT');
  const { status, stdout, stderr } = iasl(folder, '-p', 'again', 'table.dsl');
  t.is(status, 0, stderr);
  t.regex(stdout, /0 Errors, 0 Warnings, 0 Remarks, 0 Optimizations/);
  const header = 36; // it has the name and the version of the compiler
  t.deepEqual(new Uint8Array(readFileSync(join(folder, 'again.aml'))).subarray(header), table.subarray(header));
});

iaslTest('the DSDT describes power-off, processors, the host bridge, the ECAM and the serial port', (t) => {
  hasParts(t, disassemble(t, 'DSDT').text, [
    'Name (_S5, Package (0x04) { 0x05, Zero, Zero, Zero })',
    'Scope (_SB) { Device (C000) { Name (_HID, "ACPI0007" ) Name (_UID, Zero) }',
    'Device (C001) { Name (_HID, "ACPI0007" ) Name (_UID, One) }',
    'Device (PCI0) { Name (_HID, "PNP0A08" ) Name (_CID, "PNP0A03" )',
    'Name (_UID, Zero) Name (_SEG, Zero) Name (_BBN, Zero)',
    'Name (_CRS, ResourceTemplate () { WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode,',
    '0x0000, 0x0000, 0x000F, 0x0000, 0x0010, ,, )',
    'IO (Decode16, 0x0CF8, 0x0CF8, 0x01, 0x08, )',
    'DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,',
    '0x00000000, 0xC0000000, 0xCFFFFFFF, 0x00000000, 0x10000000,',
    'QWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,',
    '0x0000000000000000, 0x0000010000000000, 0x0000010FFFFFFFFF, 0x0000000000000000, 0x0000001000000000,',
    'Name (_PRT, Package (0x80)',
    '{ Package (0x04) { 0xFFFF, Zero, Zero, 0x10 },',
    'Package (0x04) { 0xFFFF, 0x03, Zero, 0x13 },',
    'Package (0x04) { 0x0001FFFF, Zero, Zero, 0x11 },',
    'Package (0x04) { 0x001FFFFF, 0x03, Zero, 0x12 } })',
    'Device (ECAM) { Name (_HID, "PNP0C02" )',
    'DWordMemory (ResourceConsumer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,',
    '0x00000000, 0xE0000000, 0xE0FFFFFF, 0x00000000, 0x01000000,',
    'Device (COM1) { Name (_HID, "PNP0501" ) Name (_UID, Zero)',
    'IO (Decode16, 0x03F8, 0x03F8, 0x01, 0x08, )',
    'Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, ) { 0x00000004, } }) } } }',
  ]);
});

iaslTest('the DSDT describes an ECAM above 4 GiB, and a window that ends at 4 GiB', (t) => {
  const ecam = AddressRange.of(1n << 38n, 256n << 20n);
  const windows = [AddressRange.of(0xf000_0000n, 0x1000_0000n)];
  hasParts(t, disassemble(t, 'DSDT', { ecam, windows }).text, [
    '0x0000, 0x0000, 0x00FF, 0x0000, 0x0100, ,, )',
    'DWordMemory (ResourceProducer',
    '0x00000000, 0xF0000000, 0xFFFFFFFF, 0x00000000, 0x10000000,',
    'QWordMemory (ResourceConsumer',
    '0x0000000000000000, 0x0000004000000000, 0x000000400FFFFFFF, 0x0000000000000000, 0x0000000010000000,',
  ]);
});

iaslTest('iasl reads the fields of the other tables', (t) => {
  hasParts(t, disassemble(t, 'FACP').text, [
    'Table Length : 00000114',
    'VGA Not Present (V4) : 1',
    'CMOS RTC Not Present (V5) : 1',
    'WBINVD instruction is operational (V1) : 1',
    'Control Method Power Button (V1) : 1',
    'Reset Register Supported (V2) : 1',
    'Hardware Reduced (V5) : 1',
    'Reset Register : [Generic Address Structure]',
    'Space ID : 01 [SystemIO]',
    'Address : 0000000000000602',
    'Value to cause reset : 06',
    'Sleep Control Register : [Generic Address Structure]',
    'Address : 0000000000000600',
    'Sleep Status Register : [Generic Address Structure]',
    'Address : 0000000000000601',
  ]);
  hasParts(t, disassemble(t, 'APIC').text, [
    'PC-AT Compatibility : 0',
    'Processor ID : 01',
    'Local Apic ID : 01',
    'Processor Enabled : 1',
    'Subtable Type : 01 [I/O APIC]',
    'Address : FEC00000',
    'Interrupt : 00000000',
  ]);
  hasParts(t, disassemble(t, 'MCFG').text, [
    'Base Address : 00000000E0000000',
    'Start Bus Number : 00',
    'End Bus Number : 0F',
  ]);
  t.regex(disassemble(t, 'XSDT').text, /ACPI Table Address 2/);
});
