/**
 * A virtual processor.
 */
import type { NativeMachine } from '#native';
import { native } from '../native-call.ts';
import { INSPECT, objectText } from '../object-text.ts';
import { PACKAGE_KEY, requirePackageKey } from '../package-key.ts';
import { type CpuRegisters, registersOf, wordsOf } from './registers.ts';

/** A processor of a virtual machine. Its number is its APIC id. */
export class VirtualCpu {
  /** From 0 on. */
  readonly index: number;
  readonly #machine: NativeMachine;

  /** @internal */
  constructor(key: typeof PACKAGE_KEY, machine: NativeMachine, index: number) {
    requirePackageKey(key, 'VirtualMachine.create()');
    this.#machine = machine;
    this.index = index;
  }

  /**
   * Reads the registers while the processor is not in the guest: it is paused, or one of its accesses waits for an
   * answer.
   *
   * @throws {PeerDmaError} `ERR_CPU_RUNNING`, `ERR_CLOSED`
   */
  registers(): CpuRegisters {
    return registersOf(native(() => this.#machine.registers(this.index)));
  }

  /**
   * Sets registers. Those that are not given keep their value.
   *
   * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for values of the wrong type or size, `ERR_SYSTEM` for a state that no
   * processor has: nothing is set then; `ERR_CPU_RUNNING`, `ERR_CLOSED`
   */
  setRegisters(registers: Partial<CpuRegisters>): void {
    const words = wordsOf({ ...this.registers(), ...registers });
    native(() => this.#machine.setRegisters(this.index, words));
  }

  /**
   * Translates a linear address by the page tables of the guest.
   *
   * @returns the guest-physical address, if there is one
   * @throws {PeerDmaError} as {@link VirtualCpu.registers}
   */
  translate(linear: bigint): bigint | undefined {
    return native(() => this.#machine.translate(this.index, linear)) ?? undefined;
  }

  /** For `console.log`. @internal */
  [INSPECT](depth: number): string {
    return objectText(depth, 'VirtualCpu', () => [`${this.index}`]);
  }
}
