/**
 * The registers of a virtual processor, by name, and their order in the native core.
 */
import { PeerDmaError } from '../errors.ts';
import { requireBigint, requireNumber } from '../number-types.ts';
import { valueText } from '../value-text.ts';

/** A segment register with its hidden part. */
export interface Segment {
  readonly base: bigint;
  /** The last offset, in bytes, from 0 to 2^32 - 1. */
  readonly limit: number;
  readonly selector: number;
  /**
   * Access rights: bits 0 to 3 type, 4 code or data, 5 and 6 privilege level, 7 present, 12 available, 13 long mode, 14
   * size, 15 granularity (Intel SDM volume 3, 26.4.1), 16 unusable.
   */
  readonly rights: number;
}

/** The base and limit of a descriptor table. */
export interface DescriptorTable {
  readonly base: bigint;
  /** The last offset, in bytes, from 0 to 2^16 - 1. */
  readonly limit: number;
}

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
] as const;
const SEGMENTS = ['cs', 'ds', 'es', 'fs', 'gs', 'ss', 'tr', 'ldt'] as const;
const TABLES = ['gdt', 'idt'] as const;

/** Registers of a virtual processor. */
export type CpuRegisters = { readonly [name in (typeof GENERAL)[number]]: bigint } & {
  readonly [name in (typeof SEGMENTS)[number]]: Segment;
} & { readonly [name in (typeof TABLES)[number]]: DescriptorTable };

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
    const { base, limit, selector, rights } = registers[name];
    words.push(requireWord(base, `${name}.base`), requireBits(limit, 32, `${name}.limit`));
    words.push(requireBits(selector, 16, `${name}.selector`), requireBits(rights, 17, `${name}.rights`));
  }
  for (const name of TABLES) {
    const { base, limit } = registers[name];
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
