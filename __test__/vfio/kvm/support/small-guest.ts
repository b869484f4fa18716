/**
 * A guest of a few instructions in 64-bit mode, whose addresses are its guest-physical addresses.
 */
import type { ExecutionContext } from 'ava';
import { GuestMemory, type RamOptions } from '../../../../ts/index.ts';
import { VirtualMachine, type VirtualCpu, type VirtualMachineOptions } from '../../../../ts/kvm.ts';
import type { Code } from './machine-code.ts';

/** The guest's RAM: page tables, stack, code, and pages for the tests. */
export const RAM_LENGTH = 0x20_0000n;
const TOP_TABLE = 0x1000n;
const TABLE = 0x2000n;
/** Four tables of 512 pages of 2 MiB: the first 4 GiB. */
const DIRECTORIES = 0x3000n;
const STACK = 0x8000n;
export const CODE = 0x1_0000n;
/** From here on, RAM is for the test. */
export const FREE = 0x10_0000n;

/** Bits of an entry of a page table: present, writable; a page of 2 MiB. */
const PRESENT = 0x3n;
const LARGE = 0x80n;

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
}

/** Creates a guest whose processor executes some code. A write to the end port ends the run: `end`. */
export async function smallGuest(
  t: ExecutionContext,
  code: Code,
  { ram = {}, before, ...options }: SmallGuestOptions = {},
): Promise<SmallGuest> {
  const memory = await GuestMemory.create({ ram: [{ start: 0n, length: RAM_LENGTH, ...ram }] });
  t.teardown(() => memory.close());
  await before?.(memory);
  const vm = await VirtualMachine.create({ memory, ...options });
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
  const flat = { base: 0n, limit: 0xffff_ffff, selector: 0x10, rights: 0xc093 };
  cpu.setRegisters({
    rip: at,
    rsp: STACK,
    rflags: 2n,
    cr0: 0x8000_0033n, // paging, numeric errors, extension type, monitor, protection
    cr3: TOP_TABLE,
    cr4: 0x20n, // physical address extension
    efer: 0x500n, // long mode enabled and active
    cs: { base: 0n, limit: 0xffff_ffff, selector: 0x8, rights: 0xa09b },
    ds: flat,
    es: flat,
    ss: flat,
  });
}

/** Maps the first 4 GiB of linear addresses to the same physical ones. */
export function writePageTables(memory: GuestMemory): void {
  memory.write64(TOP_TABLE, TABLE | PRESENT);
  for (let index = 0n; index < 4n; index++) {
    const directory = DIRECTORIES + index * 0x1000n;
    memory.write64(TABLE + index * 8n, directory | PRESENT);
    const entries = BigUint64Array.from(
      { length: 512 },
      (_, at) => (((index << 9n) | BigInt(at)) << 21n) | PRESENT | LARGE,
    );
    memory.write(directory, new Uint8Array(entries.buffer));
  }
}
