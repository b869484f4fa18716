/**
 * A guest of a few instructions in 64-bit mode, whose addresses are its guest-physical addresses.
 */
import type { ExecutionContext } from 'ava';
import { GuestMemory, type RamOptions } from '../../../../ts/index.ts';
import {
  type VirtualCpu,
  VirtualMachine,
  type VirtualMachineOptions,
  identityPageTables,
  longModeAt,
} from '../../../../ts/kvm.ts';
import type { Code } from './machine-code.ts';

/** The guest's RAM: page tables, stack, code, and pages for the tests. */
export const RAM_LENGTH = 0x20_0000n;
const PAGE_TABLES = 0x1000n;
const STACK = 0x8000n;
export const CODE = 0x1_0000n;
/** From here on, RAM is for the test. */
export const FREE = 0x10_0000n;

/** The port at which guests end their run. */
export const END_PORT = 0xf4;

/** The parts of a small guest. */
export interface SmallGuest {
  readonly memory: GuestMemory;
  readonly vm: VirtualMachine;
  readonly cpu: VirtualCpu;
  /** Values that the guest has written to the end port. */
  readonly ends: number[];
}

/** Options of {@link smallGuest}. */
export interface SmallGuestOptions extends Omit<Partial<VirtualMachineOptions>, 'memory'> {
  readonly ram?: Partial<RamOptions>;
  /** Changes guest memory before the machine is created. */
  readonly before?: (memory: GuestMemory) => Promise<void>;
  /** Creates the machine. Default: `VirtualMachine.create` */
  readonly create?: typeof VirtualMachine.create;
}

/** Creates a guest whose processor executes some code. A write to the end port ends the run: `end`. */
export async function smallGuest(
  t: ExecutionContext,
  code: Code,
  { ram = {}, before, create = VirtualMachine.create, ...options }: SmallGuestOptions = {},
): Promise<SmallGuest> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: RAM_LENGTH, ...ram }] });
  t.teardown(() => memory.close());
  await before?.(memory);
  const vm = await create({ memory, ...options });
  t.teardown(() => vm.close());
  const ends: number[] = [];
  vm.ports.add(END_PORT, 4, {
    read: () => 0,
    write: (_port, _width, value) => {
      ends.push(value);
      vm.stop('end');
    },
  });
  writePageTables(memory);
  const cpu = vm.cpus[0] as VirtualCpu;
  load(memory, cpu, code);
  return { memory, vm, cpu, ends };
}

/** Writes code, and sets a processor to its start. */
export function load(memory: GuestMemory, cpu: VirtualCpu, code: Code, at: bigint = CODE): void {
  memory.write(at, code.bytes());
  cpu.setRegisters({ ...longModeAt(at, PAGE_TABLES), rsp: STACK });
}

/** Maps the first 4 GiB of linear addresses to the same physical ones. */
export function writePageTables(memory: GuestMemory): void {
  memory.write(PAGE_TABLES, identityPageTables(PAGE_TABLES));
}
