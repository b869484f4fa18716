/**
 * Text of registers for `console.log`, in hexadecimal.
 */
import { hex } from '../address-range.ts';
import { INSPECT } from '../object-text.ts';
import type { CpuRegisters, DescriptorTable, Segment } from './registers.ts';

/** Registers that one line shows. */
const LINES = [
  ['rip', 'rsp', 'rflags'],
  ['rax', 'rbx', 'rcx', 'rdx'],
  ['rsi', 'rdi', 'rbp'],
  ['r8', 'r9', 'r10', 'r11'],
  ['r12', 'r13', 'r14', 'r15'],
  ['cr0', 'cr2', 'cr3', 'cr4', 'cr8'],
  ['efer', 'apicBase'],
  ['cs'],
  ['ds'],
  ['es'],
  ['fs'],
  ['gs'],
  ['ss'],
  ['tr'],
  ['ldt'],
  ['gdt'],
  ['idt'],
] as const satisfies readonly (readonly (keyof CpuRegisters)[])[];

type Values = Readonly<Record<string, bigint | number>>;

/** Adds the text to registers, and to each of their segments and tables. @internal */
export function withRegistersText(registers: CpuRegisters): CpuRegisters {
  for (const value of Object.values(registers) as CpuRegisters[keyof CpuRegisters][]) {
    if (typeof value !== 'object') continue;
    const name = 'selector' in value ? 'Segment' : 'DescriptorTable';
    withText(value, (depth) => (depth < 0 ? `[${name}]` : `${name} { ${partsText(value)} }`));
  }
  return withText(registers, (depth) => (depth < 0 ? '[CpuRegisters]' : `CpuRegisters {\n${linesOf(registers)}\n}`));
}

function linesOf(registers: CpuRegisters): string {
  return LINES.map((names) => `  ${names.map((name) => registerText(name, registers[name])).join(' ')}`).join('\n');
}

function registerText(name: string, value: bigint | Segment | DescriptorTable): string {
  return typeof value === 'bigint' ? `${name}=${hex(value)}` : `${name}: ${partsText(value)}`;
}

function partsText(parts: Segment | DescriptorTable): string {
  const entries = Object.entries(parts as unknown as Values);
  return entries.map(([name, value]) => `${name}=${hex(BigInt(value))}`).join(' ');
}

/** The text is not a property of copies or comparisons. */
function withText<T extends object>(value: T, text: (depth: number) => string): T {
  return Object.defineProperty(value, INSPECT, { value: text, enumerable: false });
}
