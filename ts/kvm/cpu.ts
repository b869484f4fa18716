/**
 * A virtual processor.
 */
import type { NativeMachine } from '#native';
import { requireUnsigned } from '../arguments.ts';
import { native } from '../native-call.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { type CpuRegisters, merged, registersOf, wordsOf } from './registers.ts';
import { withRegistersText } from './registers-text.ts';

/** A processor of a virtual machine. Its number is its APIC id. */
export class VirtualCpu {
  /** Its number, from 0 on. */
  readonly index: number;
  readonly #machine: NativeMachine;

  /** @internal */
  constructor(key: typeof PACKAGE_KEY, machine: NativeMachine, index: number) {
    requirePackageKey(key, 'VirtualMachine.create()');
    this.#machine = machine;
    this.index = index;
  }

  /**
   * Reads the registers. `console.log` shows them in hexadecimal, in groups.
   *
   * The processor is not in the guest: the machine is paused or stopped, or the handler of an access of this processor
   * calls the method.
   *
   * @throws {PeerDmaError} `ERR_CPU_RUNNING` while the processor executes the guest; `ERR_CLOSED`
   */
  registers(): CpuRegisters {
    return withRegistersText(registersOf(native(() => this.#machine.registers(this.index))));
  }

  /**
   * Sets registers. Those that are not given keep their value.
   *
   * With `rip`, a processor that has halted (`hlt`) continues at that instruction. A processor that the guest has not
   * started still waits for its start.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for an unknown name, and for values of the wrong type or size;
   * `ERR_SYSTEM` for a state that no processor has; `ERR_CPU_RUNNING`, `ERR_CLOSED`. Nothing is set then
   */
  setRegisters(registers: Partial<CpuRegisters>): void {
    const words = wordsOf(merged(this.registers(), registers));
    const wake = registers.rip !== undefined;
    native(() => this.#machine.setRegisters(this.index, words, wake));
  }

  /**
   * Translates a linear address by the page tables of the guest.
   *
   * @param linear 64 bits; for the instruction pointer, `cs.base + rip`
   * @returns the guest-physical address, if there is one
   * @throws {PeerDmaError} as {@link VirtualCpu.registers}; `ERR_INVALID_ARGUMENT`, `ERR_OUT_OF_RANGE`
   */
  translate(linear: bigint): bigint | undefined {
    requireUnsigned(linear, 'linear');
    return native(() => this.#machine.translate(this.index, linear)) ?? undefined;
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'VirtualCpu', () => [`${this.index}`]);
  }
}
