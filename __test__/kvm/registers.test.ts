/**
 * Text of registers.
 */
import test from 'ava';
import { inspect } from 'node:util';
import { registersOf } from '../../ts/kvm/registers.ts';
import { withRegistersText } from '../../ts/kvm/registers-text.ts';
import { stubbedMachine } from '../support/native-machine-stub.ts';

/** Each register has another value: its index in the order of the native core, from 1 on. */
const WORDS = BigUint64Array.from({ length: 61 }, (_, index) => BigInt(index + 1));
const registers = withRegistersText(registersOf(WORDS));

test('registers are shown in hexadecimal, each once, in groups', (t) => {
  t.is(
    inspect(registers),
    `CpuRegisters {
  rip=0x11 rsp=0x7 rflags=0x12
  rax=0x1 rbx=0x2 rcx=0x3 rdx=0x4
  rsi=0x5 rdi=0x6 rbp=0x8
  r8=0x9 r9=0xa r10=0xb r11=0xc
  r12=0xd r13=0xe r14=0xf r15=0x10
  cr0=0x13 cr2=0x14 cr3=0x15 cr4=0x16 cr8=0x17
  efer=0x18 apicBase=0x19
  cs: base=0x1a limit=0x1b selector=0x1c rights=0x1d
  ds: base=0x1e limit=0x1f selector=0x20 rights=0x21
  es: base=0x22 limit=0x23 selector=0x24 rights=0x25
  fs: base=0x26 limit=0x27 selector=0x28 rights=0x29
  gs: base=0x2a limit=0x2b selector=0x2c rights=0x2d
  ss: base=0x2e limit=0x2f selector=0x30 rights=0x31
  tr: base=0x32 limit=0x33 selector=0x34 rights=0x35
  ldt: base=0x36 limit=0x37 selector=0x38 rights=0x39
  gdt: base=0x3a limit=0x3b
  idt: base=0x3c limit=0x3d
}`,
  );
  t.deepEqual(Object.keys(registers).length, 25 + 8 + 2);
});

test('a segment, a table and nested registers are shown, too', (t) => {
  t.is(inspect(registers.cs), 'Segment { base=0x1a limit=0x1b selector=0x1c rights=0x1d }');
  t.is(inspect(registers.idt), 'DescriptorTable { base=0x3c limit=0x3d }');
  t.is(inspect({ registers }, { depth: 0 }), '{ registers: [CpuRegisters] }');
  t.is(inspect({ cs: registers.cs, idt: registers.idt }, { depth: 0 }), '{ cs: [Segment], idt: [DescriptorTable] }');
});

test('the text is not a part of copies, and registers that were read can be set', async (t) => {
  t.deepEqual(Object.getOwnPropertySymbols({ ...registers }), []);
  t.deepEqual(registers, registersOf(WORDS));
  const { vm, stub } = await stubbedMachine(t);
  const [cpu] = vm.cpus;
  t.regex(inspect(cpu.registers()), /^CpuRegisters \{\n {2}rip=0x0 /);
  cpu.setRegisters(cpu.registers());
  cpu.setRegisters({ cs: cpu.registers().cs });
  t.deepEqual(stub.calls, ['setRegisters 0', 'setRegisters 0']);
});
