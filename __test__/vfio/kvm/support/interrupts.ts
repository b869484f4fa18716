/**
 * A guest that counts interrupts, and halts between them.
 */
import type { ExecutionContext } from 'ava';
import { until } from '../../../support/until.ts';
import { Code } from './machine-code.ts';
import { CODE, FREE, type SmallGuest, load, smallGuest } from './small-guest.ts';

/** The vector of the guest's interrupts. */
export const VECTOR = 0x40;
/** A message that interrupts the first processor with it (Intel SDM volume 3, 10.11). */
export const MESSAGE = { address: 0xfee0_0000n, data: VECTOR };

const COUNTER = FREE;
/** The guest counts up here when it has enabled interrupts. */
const READY = FREE + 8n;
const DESCRIPTORS = 0x9000n;
/** The selectors of the start registers: this one, and the next for data. */
const CODE_SELECTOR = 0x10n;
const GATES = 0xa000n;
const HANDLER = CODE + 0x1000n;
const APIC = 0xfee0_0000n;
const APIC_END_OF_INTERRUPT = APIC + 0xb0n;
const APIC_SPURIOUS = APIC + 0xf0n;
/** The I/O APIC: the number of a register, and its contents (82093AA datasheet, 3.1). */
const IO_APIC_SELECT = 0xfec0_0000n;
const IO_APIC_DATA = 0xfec0_0010n;
const PIC_MASK = 0x21;
const SECOND_PIC_MASK = 0xa1;
const REDIRECTION = 0x10n;
const LEVEL = 1n << 15n;

/** The guest, and the number of its interrupts. */
export interface CountingGuest extends SmallGuest {
  /** The number of interrupts so far. */
  readonly count: () => bigint;
  /** Resolves when the guest has had so many interrupts. */
  readonly counts: (count: bigint) => Promise<void>;
  /** The result of the run. */
  readonly run: Promise<string>;
}

/** Starts it. @param level line whose interrupts it takes as levels, besides messages */
export async function countingGuest(t: ExecutionContext, level?: number): Promise<CountingGuest> {
  const code = new Code().rax(0x1ffn).rbx(APIC_SPURIOUS).store(4);
  if (level !== undefined) {
    code.rax(0xffn).out(PIC_MASK).out(SECOND_PIC_MASK); // otherwise the PICs interrupt, too
    const register = REDIRECTION + 2n * BigInt(level);
    code.rax(register).rbx(IO_APIC_SELECT).store(4);
    code
      .rax(LEVEL | BigInt(VECTOR))
      .rbx(IO_APIC_DATA)
      .store(4);
  }
  code.enableInterrupts().rbx(READY).increment();
  const wait = code.length;
  const guest = await smallGuest(t, code.halt().jump(wait));
  const { memory, cpu, vm } = guest;
  const handler = new Code().raw(0x50, 0x53).rbx(COUNTER).increment(); // push rax; push rbx
  handler.rax(0n).rbx(APIC_END_OF_INTERRUPT).store(4).raw(0x5b, 0x58, 0x48, 0xcf); // pop rbx; pop rax; iretq
  load(memory, cpu, handler, HANDLER);
  load(memory, cpu, code);
  memory.write64(DESCRIPTORS + CODE_SELECTOR, 0x00af_9b00_0000_ffffn);
  memory.write64(DESCRIPTORS + CODE_SELECTOR + 8n, 0x00cf_9300_0000_ffffn);
  memory.write64(
    GATES + 16n * BigInt(VECTOR),
    (HANDLER & 0xffffn) | (CODE_SELECTOR << 16n) | (0x8en << 40n) | ((HANDLER >> 16n) << 48n),
  );
  cpu.setRegisters({ gdt: { base: DESCRIPTORS, limit: 0xfff }, idt: { base: GATES, limit: 0xfff } });
  const run = vm.run();
  run.catch(() => {}); // the test awaits it, unless it has failed before
  await until(() => memory.read64(READY) === 1n, 'the guest takes interrupts');
  const count = (): bigint => memory.read64(COUNTER);
  return { ...guest, count, counts: (wanted) => until(() => count() >= wanted, `${wanted} interrupts`), run };
}
