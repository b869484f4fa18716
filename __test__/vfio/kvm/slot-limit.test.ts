/**
 * Memory that gets no memory slot: RAM is an error, and a BAR is trapped.
 */
import { NativeMachine, NativeMemoryFile, NativeReservation } from '#native';
import test from 'ava';
import { AddressRange, type GuestMemory, MemoryFile, PeerDmaError, type Region } from '../../../ts/index.ts';
import { VirtualMachine } from '../../../ts/kvm.ts';
import { Code } from './support/machine-code.ts';
import { END_PORT, FREE, smallGuest } from './support/small-guest.ts';

const VALUE = 0x8877_6655_4433_2211n;
const PAGE = 0x1000n;
/** Places of pages of RAM, in the order in which they are mapped. */
const HIGH = [0x8000_0000n, 0x9000_0000n, 0xa000_0000n] as const;
const BAR = 0xc000_0000n;
/** Addresses that the guest does not reach, of slots that the tests make themselves. */
const BEYOND = 1n << 36n;
const WRITABLE = 1n;

/** As `VirtualMachine.create`. Some memory slots exist before those of guest memory; all map the same page. */
function withSlots(slots: (most: number) => { count: number; start: bigint }): typeof VirtualMachine.create {
  const create = (...parts: Parameters<typeof NativeMachine.create>): NativeMachine => {
    const machine = NativeMachine.create(...parts);
    const memory = new NativeReservation(20);
    memory.mapFile(0n, PAGE, NativeMemoryFile.create(PAGE, 'page', 0), 0n, true, false);
    const { count, start } = slots(machine.slots);
    const requests = Array.from({ length: count }, (_, index) => [
      start + BigInt(index) * 2n * PAGE,
      PAGE,
      WRITABLE,
      0n,
    ]);
    const failure = machine.map(memory, [], BigUint64Array.from(requests.flat()));
    if (failure !== null) throw new Error(failure.failed.error.message);
    return machine;
  };
  return (options) => VirtualMachine.createOn({ create }, options);
}

/** Maps a page of RAM. */
async function page(memory: GuestMemory, start: bigint): Promise<Region> {
  const region = await memory.regions.addRegion({ name: `page ${start}`, range: AddressRange.of(start, PAGE) });
  await region.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await region.mapToGuest();
  return region;
}

/** Reads and writes a page by the guest, whose reads are stored at an address. */
function access(code: Code, at: bigint, read: bigint): Code {
  code.rbx(at).load(8).rbx(read).store(8);
  return code
    .rax(VALUE + 1n)
    .rbx(at + 8n)
    .store(8);
}

// One test of all: using up the slots of KVM (`KVM_CAP_NR_MEMSLOTS`, 32,764) takes some seconds in an emulated guest.
test.serial('without a free memory slot, a change of RAM fails and leaves nothing, and a BAR is trapped', async (t) => {
  const [first, second, third] = HIGH;
  const code = access(access(access(new Code(), second, FREE), third, FREE + 8n), BAR, FREE + 16n).out(END_PORT);
  const create = withSlots((most) => ({ count: most - 3, start: BEYOND }));
  const { memory, vm } = await smallGuest(t, access(code, BAR, FREE + 24n).out(END_PORT), { create });
  const { maxSlots, slots } = vm.inspect();
  t.is(slots, maxSlots - 2, 'with that of RAM');
  const region = await page(memory, first);
  await page(memory, second);
  memory.write64(second, VALUE);

  const before = memory.inspect();
  const error = await t.throwsAsync(page(memory, third), { instanceOf: PeerDmaError, code: 'ERR_MAPPING_LIMIT' });
  t.regex(
    error.message,
    new RegExp(`^kvm: .* all ${maxSlots} memory slots are in use\\. Use fewer and larger mappings`),
  );
  const after = memory.inspect();
  t.deepEqual([after.flat, after.quarantine, after.targets], [before.flat, [], before.targets]);
  t.is(vm.inspect().slots, maxSlots);

  const file = MemoryFile.create(PAGE, { name: 'device' });
  t.teardown(() => file.close());
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
  await bar.mapToGuest(BAR);
  const status = () => memory.inspect().targets[0]?.mappings.find((mapping) => mapping.region === 'bar');
  t.like(status(), { state: 'failed', code: 'ERR_MAPPING_LIMIT' });
  t.regex(status()?.reason ?? '', /memory slots are in use/);
  memory.write64(BAR, VALUE);
  t.is(await vm.run(), 'end');
  const words = (count: number): bigint[] =>
    Array.from({ length: count }, (_, at) => memory.read64(FREE + 8n * BigInt(at)));
  t.deepEqual(words(3), [VALUE, 0xffff_ffff_ffff_ffffn, VALUE]);
  t.deepEqual([memory.read64(second + 8n), memory.read64(BAR + 8n)], [VALUE + 1n, VALUE + 1n]);
  t.deepEqual(vm.inspect().exits, { port: 1, memory: 4, unclaimed: 2 }); // the page that was not mapped, and the BAR

  await region.unmapFromGuest(); // frees a slot
  await bar.unmapFromGuest();
  await bar.mapToGuest(BAR);
  t.is(status()?.state, 'mapped');
  t.is(await vm.run(), 'end');
  t.is(memory.read64(FREE + 24n), VALUE);
  t.deepEqual(vm.inspect().exits, { port: 2, memory: 4, unclaimed: 2 });
});

test.serial('a machine that KVM gives no slot for RAM is not created, and nothing is left', async (t) => {
  const before = async (memory: GuestMemory): Promise<void> => {
    for (const start of HIGH) await page(memory, start);
    const create = withSlots(() => ({ count: 1, start: HIGH[1] }));
    const error = await t.throwsAsync(create({ memory }), { instanceOf: PeerDmaError, code: 'ERR_OVERLAP' });
    t.regex(error.message, /^kvm: .*another memory slot has some of these addresses\. Unmap it first/);
    t.deepEqual(memory.inspect().targets, []);
  };
  const { vm } = await smallGuest(t, new Code().out(END_PORT), { before });
  t.is(vm.inspect().slots, 4);
  t.is(await vm.run(), 'end');
});
