/**
 * Memory of small guests: RAM, read-only memory, windows of devices.
 *
 * Slots change while the guest runs.
 */
import test, { type ExecutionContext } from 'ava';
import { readFileSync } from 'node:fs';
import {
  AddressRange,
  type DeviceMemory,
  type DmaMapRequest,
  GuestMemory,
  MemoryFile,
  PeerDmaError,
  type Region,
} from '../../../ts/index.ts';
import { VirtualMachine } from '../../../ts/kvm.ts';
import { guestAddressSpaceOf } from '../../../ts/guest/guest-memory.ts';
import { until } from '../../support/until.ts';
import { canReserveHugePages, freeHugePages, reserveHugePages } from '../support/huge-pages.ts';
import { Code } from './support/machine-code.ts';
import { END_PORT, FREE, RAM_LENGTH, load, smallGuest } from './support/small-guest.ts';

const WIDTHS = [1, 2, 4, 8];
const VALUE = 0x8877_6655_4433_2211n;
/** Below 4 GiB, and not RAM. */
const DEVICE = 0xc000_0000n;
const DEVICE_LENGTH = 0x4000n;

const masked = (width: number): bigint => BigInt.asUintN(8 * width, VALUE);
const bytesOf = (value: bigint): Uint8Array => new Uint8Array(BigUint64Array.of(value).buffer);

/** A window of a device with memory of a file. */
async function deviceMemory(
  t: ExecutionContext,
  memory: GuestMemory,
  writable = true,
): Promise<{ window: DeviceMemory; file: MemoryFile }> {
  const file = await MemoryFile.create(DEVICE_LENGTH, { name: 'device' });
  t.teardown(() => file.close());
  const window = memory.newDeviceMemory({ name: 'bar', length: DEVICE_LENGTH });
  await window.addMapping({ range: AddressRange.of(0n, DEVICE_LENGTH), backing: { file, offset: 0n }, writable });
  return { window, file };
}

test.serial('executes instructions and accesses RAM without an exit', async (t) => {
  const code = new Code();
  for (const width of WIDTHS)
    code
      .rax(VALUE)
      .rbx(FREE + 16n * BigInt(width))
      .store(width);
  const { memory, vm } = await smallGuest(t, code.out(END_PORT));
  t.is(await vm.run(), 'end');
  for (const width of WIDTHS) t.is(memory.read64(FREE + 16n * BigInt(width)), masked(width));
  t.deepEqual(vm.inspect().exits, { port: 1, memory: 0, unclaimed: 0 });
});

for (const [name, ram] of [
  ['private RAM', { private: true }],
  ['RAM of transparent huge pages', { hugePages: 'transparent' }],
] as const) {
  test.serial(`a guest runs in ${name}`, async (t) => {
    const { memory, vm } = await smallGuest(t, new Code().rax(VALUE).rbx(FREE).store(8).out(END_PORT), { ram });
    t.is(await vm.run(), 'end');
    t.is(memory.read64(FREE), VALUE);
  });
}

const hasHugePages = canReserveHugePages || freeHugePages() > 0;
const needs = hasHugePages ? '' : ' (needs sysctl vm.nr_hugepages=1; npm test runs it in the testbed)';
(hasHugePages ? test.serial : test.serial.skip)(`a guest reads and writes RAM of a huge page${needs}`, async (t) => {
  const pool = reserveHugePages(t, 4);
  const code = new Code()
    .rbx(FREE)
    .load(8)
    .rbx(FREE + 8n)
    .store(8)
    .out(END_PORT);
  const { memory, vm } = await smallGuest(t, code, { ram: { hugePages: '2M' } });
  memory.write64(FREE, VALUE);
  t.is(await vm.run(), 'end');
  t.is(memory.read64(FREE + 8n), VALUE);
  t.is(freeHugePages(), pool - 1, 'all RAM is that page');
  t.deepEqual(vm.inspect().exits, { port: 1, memory: 0, unclaimed: 0 });
});

test.serial('a guest reads and writes the memory of a device without an exit', async (t) => {
  const code = new Code()
    .rbx(DEVICE)
    .load(8)
    .rbx(FREE)
    .store(8)
    .rbx(DEVICE + 8n)
    .store(8)
    .out(END_PORT);
  const { memory, vm } = await smallGuest(t, code);
  const { window, file } = await deviceMemory(t, memory);
  await window.mapToGuest(DEVICE);
  memory.write64(DEVICE, VALUE);
  t.is(await vm.run(), 'end');
  t.is(memory.read64(FREE), VALUE);
  t.deepEqual(file.read(8n, 8), bytesOf(VALUE));
  t.deepEqual(vm.inspect().exits, { port: 1, memory: 0, unclaimed: 0 });
});

test.serial('a guest reads read-only memory, and its writes have no effect', async (t) => {
  const code = new Code().rbx(DEVICE).load(8).rbx(FREE).store(8).rax(0n).rbx(DEVICE).store(8).out(END_PORT);
  const { memory, vm } = await smallGuest(t, code);
  const { window } = await deviceMemory(t, memory, false);
  await window.mapToGuest(DEVICE, { writable: false });
  memory.write64(DEVICE, VALUE);
  t.is(await vm.run(), 'end');
  t.is(memory.read64(FREE), VALUE);
  t.is(memory.read64(DEVICE), VALUE);
  t.deepEqual(vm.inspect().exits, { port: 1, memory: 1, unclaimed: 0 }); // the write
});

test.serial('a trapped page between mapped ones exits with each width', async (t) => {
  const trapped = DEVICE + 0x1000n;
  const code = new Code();
  for (const width of WIDTHS)
    code
      .rbx(trapped + 8n)
      .load(width)
      .rbx(trapped)
      .store(width);
  code
    .rax(VALUE)
    .rbx(DEVICE)
    .store(8)
    .rbx(DEVICE + 0x2000n)
    .store(8)
    .out(END_PORT);
  const { memory, vm } = await smallGuest(t, code);
  const { window } = await deviceMemory(t, memory);
  await window.removeMappings(AddressRange.of(0x1000n, 0x1000n));
  await window.mapToGuest(DEVICE);
  const accesses: string[] = [];
  vm.mmio.add(AddressRange.of(trapped, 0x1000n), {
    read: (gpa, length) => {
      accesses.push(`read ${gpa - trapped} ${length}`);
      return bytesOf(VALUE).subarray(0, length);
    },
    write: (gpa, bytes) => void accesses.push(`write ${gpa - trapped} ${Buffer.from(bytes).toString('hex')}`),
  });
  t.is(await vm.run(), 'end');
  t.deepEqual(accesses, [
    'read 8 1',
    'write 0 11',
    'read 8 2',
    'write 0 1122',
    'read 8 4',
    'write 0 11223344',
    'read 8 8',
    'write 0 1122334455667788',
  ]);
  t.is(memory.read64(DEVICE), VALUE);
  t.is(memory.read64(DEVICE + 0x2000n), VALUE);
});

test.serial('an access without memory or handler reads ones, and its write has no effect', async (t) => {
  const code = new Code()
    .rbx(DEVICE)
    .load(8)
    .rbx(FREE)
    .store(8)
    .rbx(DEVICE)
    .store(4)
    .in(0x123, 4)
    .rbx(FREE + 8n)
    .store(8);
  const { memory, vm } = await smallGuest(t, code.out(END_PORT));
  t.is(await vm.run(), 'end');
  t.is(memory.read64(FREE), 0xffff_ffff_ffff_ffffn);
  t.is(memory.read64(FREE + 8n), 0xffff_ffffn);
  t.deepEqual(vm.inspect().exits, { port: 2, memory: 2, unclaimed: 3 });
});

test.serial('a guest finds a window at its new address after a move, and nothing at the old one', async (t) => {
  const moved = DEVICE + 0x10_0000n;
  const read = (from: bigint, to: bigint): Code => new Code().rbx(from).load(8).rbx(to).store(8);
  const code = read(DEVICE, FREE)
    .out(END_PORT)
    .raw(...read(DEVICE, FREE + 8n).bytes());
  const { memory, vm } = await smallGuest(t, code.raw(...read(moved, FREE + 16n).bytes()).out(END_PORT));
  const { window } = await deviceMemory(t, memory);
  await window.mapToGuest(DEVICE);
  memory.write64(DEVICE, VALUE);
  t.is(await vm.run(), 'end');
  await window.mapToGuest(moved);
  t.is(await vm.run(), 'end');
  t.is(memory.read64(FREE), VALUE);
  t.is(memory.read64(FREE + 8n), 0xffff_ffff_ffff_ffffn);
  t.is(memory.read64(FREE + 16n), VALUE);
});

/** Moves of a slot under a running processor. Emulated in a guest, each takes about a millisecond. */
const MOVES = 10_000;

test.serial('10,000 moves of a slot under a running processor: every access has the right bytes', async (t) => {
  const other = DEVICE + 0x10_0000n;
  // Reads both places for ever. Each has the value of the device, or ones. Anything else ends the run.
  const code = new Code();
  const start = code.length;
  for (const place of [DEVICE, other]) {
    code.rbx(place).load(8).rcx(VALUE);
    code.raw(0x48, 0x39, 0xc8, 0x74, 0x0b); // cmp rax, rcx; je over the next three
    code.raw(0x48, 0x83, 0xf8, 0xff, 0x74, 0x05); // cmp rax, -1; je over the next one
    code.out(END_PORT, 4);
  }
  code.rbx(FREE).increment().jump(start);
  const { memory, vm, ends } = await smallGuest(t, code);
  const { window } = await deviceMemory(t, memory);
  await window.mapToGuest(DEVICE);
  memory.write64(DEVICE, VALUE);
  const run = vm.run();
  const LOOPS = 100n;
  for (let move = 1; move <= MOVES || memory.read64(FREE) < LOOPS; move++) {
    await window.mapToGuest(move % 2 === 0 ? DEVICE : other);
    if (move % 10 === 0) await new Promise((resolve) => setImmediate(resolve)); // the event loop answers exits
  }
  t.deepEqual(ends, []);
  vm.stop('moved');
  t.is(await run, 'moved');
});

/** A page of memory that wins over RAM. */
async function overlay(memory: GuestMemory, start: bigint): Promise<Region> {
  const range = AddressRange.of(start, 0x1000n);
  const region = await memory.regions.addRegion({ name: 'overlay', range, priority: 200 });
  await region.addMapping({ range: AddressRange.of(0n, 0x1000n), backing: 'private' });
  return region;
}

test.serial('RAM whose slot is replaced stays executable for a running processor', async (t) => {
  const code = new Code();
  const start = code.length;
  code.rbx(FREE).increment().jump(start);
  const { memory, vm } = await smallGuest(t, code);
  const run = vm.run();
  for (let round = 1n; round <= 100n; round++) {
    const region = await overlay(memory, RAM_LENGTH - round * 0x2000n);
    await region.mapToGuest(); // splits the slot of the code's RAM in two
  }
  const loops = memory.read64(FREE);
  await until(() => memory.read64(FREE) > loops, 'the guest runs on');
  t.is(vm.inspect().slots, 201);
  vm.stop('replaced');
  t.is(await run, 'replaced');
});

test.serial('closing the machine removes its slots, and guest memory can have another one', async (t) => {
  const { memory, vm } = await smallGuest(t, new Code().out(END_PORT));
  const error = await t.throwsAsync(VirtualMachine.create({ memory }), { instanceOf: PeerDmaError });
  t.is(error.code, 'ERR_INVALID_ARGUMENT');
  t.regex(error.message, /Close that virtual machine first/);
  t.deepEqual(
    memory.inspect().targets.map(({ name }) => name),
    ['kvm'],
  );
  await vm.close();
  t.deepEqual(memory.inspect().targets, []);
  t.is(vm.inspect().slots, 0);
  await using again = await VirtualMachine.create({ memory });
  t.is(again.inspect().slots, 1);
  load(memory, again.cpus[0] as never, new Code().halt());
});

const physicalBits = Number(/(\d+) bits physical/.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]);
const isNarrow = physicalBits < 46; // guest memory has up to 46 bits

(isNarrow ? test.serial : test.serial.skip)('RAM beyond the addresses of the processor is an error', async (t) => {
  await using memory = await GuestMemory.create({ ram: [{ start: 1n << BigInt(physicalBits), length: 4096n }] });
  const error = await t.throwsAsync(VirtualMachine.create({ memory }), { code: 'ERR_MAP_FAILED' });
  t.regex(error?.message ?? '', /EINVAL: it exceeds the physical addresses of the processor\. Compare "address sizes"/);
  t.is(memory.inspect().targets.length, 0);
});

test.serial('processors are the last target of each step, also for one that joins after them', async (t) => {
  const { memory } = await smallGuest(t, new Code().out(END_PORT));
  await memory.dmaMappers.addDmaMapper({ name: 'iommu', mapDma: () => {}, unmapDma: () => {} });
  t.deepEqual(
    [...guestAddressSpaceOf(memory).mappers].map(({ name }) => name),
    ['iommu', 'kvm'],
  );
});

test.serial('memory that a target cannot map leaves the slots as they were', async (t) => {
  const { memory, vm } = await smallGuest(t, new Code().out(END_PORT));
  const region = await overlay(memory, 0x18_0000n);
  const mapDma = ({ name }: DmaMapRequest): void => {
    if (name === 'overlay') throw new Error('full');
  };
  await memory.dmaMappers.addDmaMapper({ name: 'iommu', mapDma, unmapDma: () => {} });
  await t.throwsAsync(region.mapToGuest(), { message: /full/ });
  t.is(vm.inspect().slots, 1);
  t.is(await vm.run(), 'end');
});

test.serial('a guest reaches plugged blocks of RAM only, and a block that is plugged again is zero', async (t) => {
  const BLOCK = 0x1000n;
  const start = 0x8000_0000n;
  const ones = (1n << 64n) - 1n;
  const at = start + BLOCK;
  const code = new Code().rbx(at).load(8).rbx(FREE).store(8).rax(VALUE).rbx(at).store(8).out(END_PORT);
  const { memory, vm, cpu } = await smallGuest(t, code);
  const blocks = AddressRange.of(start, 1000n * BLOCK);
  const ram = await memory.addPluggableRam({ start, length: blocks.length, blockSize: BLOCK });
  const read = async (): Promise<bigint> => {
    load(memory, cpu, code);
    t.is(await vm.run(), 'end');
    return memory.read64(FREE);
  };
  t.is(await read(), ones, 'no block is plugged');
  await ram.plug([AddressRange.of(at, BLOCK)]);
  t.deepEqual([await read(), await read()], [0n, VALUE]);
  await ram.unplug([AddressRange.of(at, BLOCK)]);
  t.is(await read(), ones);
  const began = performance.now();
  await ram.plug([blocks]);
  const plugged = performance.now();
  t.is(await read(), 0n);
  const paused = performance.now();
  await ram.unplug([blocks]);
  const [plug, unplug] = [plugged - began, performance.now() - paused].map(Math.round);
  t.log(`1,000 memory slots: plugged in ${plug} ms, unplugged in ${unplug} ms`);
  t.is(await read(), ones);
});
