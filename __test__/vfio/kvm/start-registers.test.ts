/**
 * A processor executes code in each mode, from the state of the mode before.
 */
import test from 'ava';
import { GuestMemory } from '../../../ts/index.ts';
import {
  type CpuRegisters,
  VirtualMachine,
  identityPageTables,
  longModeAt,
  protectedModeAt,
  realModeAt,
} from '../../../ts/kvm.ts';

const PAGE_TABLES = 0x3000n;
/** Above 64 KiB, so that real mode needs a segment. */
const CODE = 0x1_2340n;

/**
 * `dec eax; inc eax; out 0xf4, eax` in 32 bits. In 64 bits the first byte is a prefix, so it only increments. In 16
 * bits the access has two bytes.
 */
const BYTES = Uint8Array.of(0x48, 0xff, 0xc0, 0xe7, 0xf4);

test.serial('a processor starts in real, protected and long mode, in any order', async (t) => {
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: 1n << 20n }] });
  await using vm = await VirtualMachine.create({ memory });
  const [cpu] = vm.cpus;
  const accesses: string[] = [];
  vm.ports.add(0xf4, 1, {
    read: () => 0,
    write: (_port, width, value) => {
      accesses.push(`${width} bytes: ${value}`);
      vm.stop('end');
    },
  });
  memory.write(PAGE_TABLES, identityPageTables(PAGE_TABLES));
  memory.write(CODE, BYTES);
  const modes: Readonly<Record<string, Partial<CpuRegisters>>> = {
    real: realModeAt(CODE),
    protected: protectedModeAt(CODE),
    long: longModeAt(CODE, PAGE_TABLES),
  };
  const order = ['long', 'real', 'protected', 'long', 'protected', 'real', 'long'];
  for (const mode of order) {
    cpu.setRegisters({ ...modes[mode], rax: 0n });
    t.is(await vm.run(), 'end');
    const { cs, rip } = cpu.registers();
    t.is(cs.base + rip, CODE + BigInt(BYTES.length), mode);
  }
  const expected: Readonly<Record<string, string>> = {
    real: '2 bytes: 0',
    protected: '4 bytes: 0',
    long: '4 bytes: 1',
  };
  t.deepEqual(
    accesses,
    order.map((mode) => expected[mode]),
  );
});
