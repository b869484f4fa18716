/**
 * The stops of a processor: reasons that end a run, and failures.
 */
import { AddressRange, hex } from '../address-range.ts';
import { PeerDmaError } from '../errors.ts';
import { type GuestMemory, guestAddressSpaceOf } from '../guest/guest-memory.ts';
import { isPresent } from '../memory/backing.ts';
import type { VirtualCpu } from './cpu.ts';
import { type GuestAccessExit, type StoppedExit, accessText } from './exit-loop.ts';

/**
 * The reasons of a run that ends without {@link VirtualMachine.stop}.
 *
 * `triple-fault` resets a PC. The guest requests the others by a call of KVM.
 */
export type StopReason = 'triple-fault' | 'shutdown' | 'reset' | 'crash';

/** Numbers of the native core. */
const SHUTDOWN = 1;
const HALTED = 2;
const SYSTEM_EVENT = 3;
const ENTRY_FAILED = 4;
const INTERNAL_ERROR = 5;
const MEMORY_FAULT = 6;
const RUN_FAILED = 7;
const MEMORY_ERROR = 9;

/** The number of an error of the kernel. */
const EFAULT = 14;

/** `KVM_SYSTEM_EVENT_…` (Linux, include/uapi/linux/kvm.h). */
const EVENTS: Readonly<Record<number, StopReason>> = { 1: 'shutdown', 2: 'reset', 3: 'crash' };

/** Messages show so many bytes at the instruction pointer: those of the longest instruction. */
const CODE_BYTES = 15;

/** Returns the reason of a stop that is not a failure. @internal */
export function stopReason({ reason, detail }: StoppedExit): StopReason | undefined {
  if (reason === SHUTDOWN) return 'triple-fault';
  return reason === SYSTEM_EVENT ? EVENTS[detail] : undefined;
}

/** The error of a processor that cannot execute the guest. @internal */
export function cpuFailed(exit: StoppedExit, cpu: VirtualCpu, memory: GuestMemory): PeerDmaError {
  const text = `virtual machine: processor ${exit.cpu} failed: ${failureText(exit, memory)}`;
  return new PeerDmaError('ERR_CPU_FAILED', `${text}. ${stateText(cpu, memory)}`);
}

/** The error of an access whose handler failed. @internal */
export function handlerFailed(
  access: GuestAccessExit,
  cause: Error,
  cpu: VirtualCpu,
  memory: GuestMemory,
): PeerDmaError {
  const text = `virtual machine: ${accessText(access)} failed: ${cause.message}`;
  return new PeerDmaError('ERR_CPU_FAILED', `${text}. ${stateText(cpu, memory)}`, { cause });
}

/** The error of an access that no handler answers. @internal */
export function unclaimedAccess(access: GuestAccessExit, cpu: VirtualCpu, memory: GuestMemory): PeerDmaError {
  const remedy = 'Add a handler, or create the machine with unclaimed: "ones"';
  const text = `virtual machine: ${accessText(access)} failed: no handler and no memory is there. ${remedy}`;
  return new PeerDmaError('ERR_CPU_FAILED', `${text}. ${stateText(cpu, memory)}`);
}

function failureText({ reason, detail, data }: StoppedExit, memory: GuestMemory): string {
  switch (reason) {
    case HALTED:
      return 'it halted, and no interrupt can wake it';
    case SYSTEM_EVENT:
      return `the guest requested the unknown system event ${detail}`;
    case ENTRY_FAILED:
      return `the hardware rejected its state with the reason ${hex(data)}. Check the registers`;
    case INTERNAL_ERROR:
      return `KVM cannot execute its instruction (internal error ${detail}). Check whether there is memory at rip`;
    case MEMORY_FAULT:
      return `the host cannot access the memory at ${hex(data)}`;
    case RUN_FAILED:
      return detail === EFAULT ? lostMemoryText(memory) : `KVM_RUN failed with errno ${detail}`;
    case MEMORY_ERROR: {
      const place = detail === 0 ? 'that it accesses' : `at ${hex(data)}`;
      return `the host's memory ${place} has an uncorrectable error. The end of dmesg has its page`;
    }
    default:
      return `it left the guest with the unknown reason ${detail}`;
  }
}

/** Text of the memory that the host has lost, also if the search for it fails. */
function lostMemoryText(memory: GuestMemory): string {
  try {
    return lostPartText(memory);
  } catch (error) {
    return `the host cannot access its memory (EFAULT). Looking for its missing part failed: ${String(error)}`;
  }
}

/** Names the memory that the host has lost. The kernel does not report which of it the guest accesses. */
function lostPartText(memory: GuestMemory): string {
  const mapped = guestAddressSpaceOf(memory).map.flat.overlapping(AddressRange.between(0n, 1n << 64n));
  const lost = [...mapped].find((sub) => !isPresent(sub.memory, sub.range.length));
  if (lost === undefined) return 'the host cannot access its memory (EFAULT). The end of dmesg may have the reason';
  const { name, range } = lost;
  const remedy = 'If its file was truncated, restore it. If it is a BAR, its device does not decode memory';
  return `the host cannot access its memory (EFAULT): a part of "${name}" at ${range} is missing. ${remedy}`;
}

/** Registers, and the bytes of the instruction. */
function stateText(cpu: VirtualCpu, memory: GuestMemory): string {
  try {
    const { rip, rsp, rflags, cr0, cr3, cr4, efer, cs } = cpu.registers();
    const state = Object.entries({ rip, rsp, rflags, cr0, cr3, cr4, efer, cs: cs.base });
    const registers = state.map(([name, value]) => `${name}=${hex(value)}`).join(' ');
    return `${registers}, ${codeText(cpu, memory, cs.base + rip)}`;
  } catch (error) {
    return `its registers cannot be read: ${String(error)}`;
  }
}

function codeText(cpu: VirtualCpu, memory: GuestMemory, linear: bigint): string {
  const gpa = cpu.translate(BigInt.asUintN(64, linear));
  if (gpa === undefined) return 'no page at rip';
  try {
    const bytes = memory.read(gpa, CODE_BYTES);
    return `bytes at rip: ${[...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')}`;
  } catch {
    return `no memory at rip (${hex(gpa)})`;
  }
}
