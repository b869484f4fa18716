/**
 * Resets of a virtual machine: no state of a processor survives.
 */
import test from 'ava';
import { Code } from './support/machine-code.ts';
import { END_PORT, FREE, load, smallGuest } from './support/small-guest.ts';

const VALUE = 0x8877_6655_4433_2211n;
const SCRATCH = FREE + 0xf000n;

/** State of a processor: instructions that read it to `rax`, and that write `rax` to it. */
interface State {
  readonly name: string;
  readonly value: bigint;
  readonly read: (code: Code) => Code;
  readonly write: (code: Code) => Code;
}

/** A register by `rdmsr` and `wrmsr`. The upper half of `rax` is in `rdx`. */
function modelSpecific(name: string, index: bigint, value: bigint): State {
  return {
    name,
    value,
    // rdmsr; shl rdx, 32; or rax, rdx
    read: (code) => code.rcx(index).raw(0x0f, 0x32, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0),
    // mov rdx, rax; shr rdx, 32; wrmsr
    write: (code) => code.rcx(index).raw(0x48, 0x89, 0xc2, 0x48, 0xc1, 0xea, 0x20, 0x0f, 0x30),
  };
}

/** Numbers of registers: Intel SDM volume 4, table 2-2. */
const STATES: readonly State[] = [
  {
    name: 'XCR0: the length of the state that it enables',
    value: 0x340n, // that of FPU, SSE and AVX
    read: (code) => code.rax(0xdn).rcx(0n).raw(0x0f, 0xa2, 0x48, 0x89, 0xd8), // cpuid; mov rax, rbx
    write: (code) => code.rax(7n).rcx(0n).raw(0x31, 0xd2, 0x0f, 0x01, 0xd1), // xor edx, edx; xsetbv
  },
  {
    name: 'XMM0',
    value: VALUE,
    read: (code) => code.rbx(SCRATCH).raw(0xf3, 0x0f, 0x7f, 0x03).load(8), // movdqu [rbx], xmm0
    write: (code) => code.rbx(SCRATCH).store(8).raw(0xf3, 0x0f, 0x6f, 0x03), // movdqu xmm0, [rbx]
  },
  {
    name: 'DR0',
    value: VALUE & 0xffff_ffffn,
    read: (code) => code.raw(0x0f, 0x21, 0xc0), // mov rax, dr0
    write: (code) => code.raw(0x0f, 0x23, 0xc0), // mov dr0, rax
  },
  modelSpecific('the default memory type', 0x2ffn, 0x806n),
  modelSpecific('a fixed range of memory types', 0x268n, 0x0606_0606_0606_0606n),
  modelSpecific('the base of a range of memory types', 0x200n, 0xc000_0006n),
  modelSpecific('the control of a bank of machine checks', 0x400n, 0xffff_ffff_ffff_ffffn),
  modelSpecific('the page attributes', 0x277n, 0x0606_0606_0606_0606n),
  modelSpecific('the adjustment of the time-stamp counter', 0x3bn, 0x1000n),
];

/** Enables SSE and XSAVE, and stores each state from an address on. */
function store(code: Code, at: bigint): Code {
  code.raw(0x0f, 0x20, 0xe0, 0x48, 0x0d, 0x00, 0x06, 0x04, 0x00, 0x0f, 0x22, 0xe0); // mov rax, cr4; or; mov cr4, rax
  for (const [index, { read }] of STATES.entries())
    read(code)
      .rbx(at + 8n * BigInt(index))
      .store(8);
  return code;
}

test.serial('no state that a guest has changed before a triple fault survives a reset', async (t) => {
  const [first, changed, after] = [FREE, FREE + 0x1000n, FREE + 0x2000n];
  const code = store(new Code(), first);
  for (const { value, write } of STATES) write(code.rax(value));
  const { memory, vm, cpu } = await smallGuest(t, store(code, changed).undefinedInstruction());
  const states = (at: bigint): Record<string, bigint> =>
    Object.fromEntries(STATES.map(({ name }, index) => [name, memory.read64(at + 8n * BigInt(index))]));
  t.is(await vm.run(), 'triple-fault');
  t.deepEqual(states(changed), Object.fromEntries(STATES.map(({ name, value }) => [name, value])));
  vm.reset();
  load(memory, cpu, store(new Code(), after).out(END_PORT));
  t.is(await vm.run(), 'end');
  t.deepEqual(states(after), states(first));
  for (const [index, { name, value }] of STATES.entries())
    t.not(memory.read64(first + 8n * BigInt(index)), value, name);
});
