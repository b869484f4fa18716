/**
 * Machine code for devices on the guest's PCI bus.
 */
import { PciHostBridge } from '../../../../ts/index.ts';
import type { Code } from './machine-code.ts';

export const { CONFIG_ADDRESS, CONFIG_DATA } = PciHostBridge;
/** Registers of config space, and bits of Command. */
export const COMMAND = 0x04;
export const BAR0 = 0x10;
export const BAR2 = 0x18;
export const MEMORY = 2n;
export const BUS_MASTER = 4n;

/** Writes a register of function 0 of a device on bus 0. */
export function configure(code: Code, device: number, register: number, value: bigint): Code {
  const selected = 0x8000_0000n | (BigInt(device) << 11n) | BigInt(register);
  return code.rax(selected).out(CONFIG_ADDRESS, 4).rax(value).out(CONFIG_DATA, 4);
}

/** Registers of QEMU's `edu`, and its buffer (QEMU, docs/specs/edu.rst). */
const SOURCE = 0x80n;
const TARGET = 0x88n;
const COUNT = 0x90n;
const START = 0x98n;
export const EDU_BUFFER = 0x4_0000n;

/** A copy by an edu between its buffer and an address. */
export interface Transfer {
  readonly source: bigint;
  readonly target: bigint;
  /** Bytes. */
  readonly count: bigint;
}

/** Starts a copy by the edu whose registers are at an address, and waits for its end. */
export function transfer(code: Code, registers: bigint, { source, target, count }: Transfer): Code {
  const set = (register: bigint, value: bigint): Code =>
    code
      .rax(value)
      .rbx(registers + register)
      .store(8);
  set(SOURCE, source);
  set(TARGET, target);
  set(COUNT, count);
  const fromBuffer = source === EDU_BUFFER ? 2n : 0n;
  set(START, 1n | fromBuffer);
  const poll = code.length;
  code
    .rbx(registers + START)
    .load(4)
    .raw(0xa8, 0x01); // test al, 1
  const distance = poll - (code.length + 6);
  return code.raw(0x0f, 0x85, ...new Uint8Array(Int32Array.of(distance).buffer)); // jnz poll
}
