/**
 * The registers of a virtual processor by name, and their order in the native core.
 */
import { readEntries, readOptions } from '../arguments.ts';
import { PeerDmaError } from '../errors.ts';
import { requireBigint, requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';

/** A segment register with its hidden part. */
export interface Segment {
  /** The linear address of its start, 64 bits. */
  readonly base: bigint;
  /** The last offset, in bytes, from 0 to 2^32 - 1. */
  readonly limit: number;
  /** 16 bits: the offset of its descriptor, with the requested privilege level in bits 0 and 1. */
  readonly selector: number;
  /**
   * Access rights, in the layout of VMX (Intel SDM volume 3, 26.4.1).
   *
   * Bits 0 to 3 type, 4 code or data, 5 and 6 privilege level, 7 present, 12 available, 13 long mode, 14 size, 15
   * granularity, 16 unusable.
   */
  readonly rights: number;
}

/** The base and limit of a descriptor table. */
export interface DescriptorTable {
  /** Its linear address, 64 bits. */
  readonly base: bigint;
  /** The last offset, in bytes, from 0 to 2^16 - 1. */
  readonly limit: number;
}

/** Registers of a virtual processor. */
export interface CpuRegisters {
  /** A general-purpose register. */
  readonly rax: bigint;
  /** A general-purpose register. */
  readonly rbx: bigint;
  /** A general-purpose register. */
  readonly rcx: bigint;
  /** A general-purpose register. */
  readonly rdx: bigint;
  /** A general-purpose register. */
  readonly rsi: bigint;
  /** A general-purpose register. */
  readonly rdi: bigint;
  /** The stack pointer. */
  readonly rsp: bigint;
  /** The frame pointer. */
  readonly rbp: bigint;
  /** A general-purpose register. */
  readonly r8: bigint;
  /** A general-purpose register. */
  readonly r9: bigint;
  /** A general-purpose register. */
  readonly r10: bigint;
  /** A general-purpose register. */
  readonly r11: bigint;
  /** A general-purpose register. */
  readonly r12: bigint;
  /** A general-purpose register. */
  readonly r13: bigint;
  /** A general-purpose register. */
  readonly r14: bigint;
  /** A general-purpose register. */
  readonly r15: bigint;
  /** The instruction pointer: an offset in the code segment. */
  readonly rip: bigint;
  /** Flags. Bit 1 is always set. */
  readonly rflags: bigint;
  /** Protection (bit 0), paging (bit 31) and others. */
  readonly cr0: bigint;
  /** The linear address of the last page fault. */
  readonly cr2: bigint;
  /** The guest-physical address of the top page table. */
  readonly cr3: bigint;
  /** Extensions, such as physical address extension (bit 5). */
  readonly cr4: bigint;
  /** The task priority. */
  readonly cr8: bigint;
  /** Extended features: long mode enabled (bit 8) and active (bit 10), and others. */
  readonly efer: bigint;
  /** The address of the local APIC and its mode (`IA32_APIC_BASE`). */
  readonly apicBase: bigint;
  /** The code segment. */
  readonly cs: Segment;
  /** The data segment. */
  readonly ds: Segment;
  /** An additional data segment. */
  readonly es: Segment;
  /** An additional data segment. */
  readonly fs: Segment;
  /** An additional data segment. */
  readonly gs: Segment;
  /** The stack segment. */
  readonly ss: Segment;
  /** The task register. */
  readonly tr: Segment;
  /** The local descriptor table. */
  readonly ldt: Segment;
  /** The global descriptor table. */
  readonly gdt: DescriptorTable;
  /** The interrupt descriptor table. */
  readonly idt: DescriptorTable;
}

/** The registers in the order of the native core. */
const GENERAL = [
  'rax',
  'rbx',
  'rcx',
  'rdx',
  'rsi',
  'rdi',
  'rsp',
  'rbp',
  'r8',
  'r9',
  'r10',
  'r11',
  'r12',
  'r13',
  'r14',
  'r15',
  'rip',
  'rflags',
  'cr0',
  'cr2',
  'cr3',
  'cr4',
  'cr8',
  'efer',
  'apicBase',
] as const satisfies readonly (keyof CpuRegisters)[];
const SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const;
const TABLES = ['gdt', 'idt'] as const;

/** Converts the words of the native core. @internal */
export function registersOf(words: BigUint64Array): CpuRegisters {
  const all: Record<string, unknown> = {};
  const next = words.values();
  const word = (): bigint => next.next().value ?? 0n;
  for (const name of GENERAL) all[name] = word();
  for (const name of SEGMENTS) {
    all[name] = { base: word(), limit: Number(word()), selector: Number(word()), rights: Number(word()) };
  }
  for (const name of TABLES) all[name] = { base: word(), limit: Number(word()) };
  return all as unknown as CpuRegisters; // by the loops, which set each name
}

/**
 * Returns registers with some of them replaced.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a name that no register has
 * @internal
 */
export function merged(current: CpuRegisters, given: Partial<CpuRegisters>): CpuRegisters {
  const all: Record<string, unknown> = { ...current };
  for (const [name, value] of readEntries(given as Readonly<Record<string, unknown>>, 'the registers')) {
    if (!Object.hasOwn(current, name)) {
      throw new PeerDmaError('ERR_INVALID_ARGUMENT', `a processor has no register ${valueText(name)}`);
    }
    if (value !== undefined) all[name] = value;
  }
  return all as unknown as CpuRegisters;
}

/**
 * Converts registers for the native core.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for a value of the wrong type, or one that does not fit
 * @internal
 */
export function wordsOf(registers: CpuRegisters): BigUint64Array {
  const words: bigint[] = [];
  for (const name of GENERAL) words.push(requireWord(registers[name], name));
  for (const name of SEGMENTS) {
    const { base, limit, selector, rights } = readOptions(
      registers[name],
      ['base', 'limit', 'selector', 'rights'],
      name,
    );
    words.push(requireWord(base, `${name}.base`), requireBits(limit, 32, `${name}.limit`));
    words.push(requireBits(selector, 16, `${name}.selector`), requireBits(rights, 17, `${name}.rights`));
  }
  for (const name of TABLES) {
    const { base, limit } = readOptions(registers[name], ['base', 'limit'], name);
    words.push(requireWord(base, `${name}.base`), requireBits(limit, 16, `${name}.limit`));
  }
  return BigUint64Array.from(words);
}

function requireWord(value: bigint, name: string): bigint {
  requireBigint(value, name);
  if (BigInt.asUintN(64, value) !== value) throw doesNotFit(name, 64, value);
  return value;
}

function requireBits(value: number, bits: number, name: string): bigint {
  requireNumber(value, name);
  if (!Number.isInteger(value) || value < 0 || value >= 2 ** bits) throw doesNotFit(name, bits, value);
  return BigInt(value);
}

function doesNotFit(name: string, bits: number, value: bigint | number): PeerDmaError {
  const text = `the register ${name} has ${bits} bits: a value is 0 to 2^${bits} - 1, not ${valueText(value)}`;
  return new PeerDmaError('ERR_INVALID_ARGUMENT', text);
}
