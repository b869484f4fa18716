/**
 * The example VMM loads Linux into guest memory.
 */
import test, { type ExecutionContext } from 'ava';
import { type BzImage, parseBzImage } from '../../examples/vmm/boot/bzimage.ts';
import { loadLinux, type LinuxOptions } from '../../examples/vmm/boot/linux.ts';
import { AddressRange, GuestMemory } from '../../ts/index.ts';
import type { CpuRegisters } from '../../ts/kvm.ts';
import { CODE_START, type HeaderFields, KERNEL, MAX_COMMAND_LINE, fakeBzImage } from './support/bzimage.ts';

const MiB = 1n << 20n;
const LOW = AddressRange.of(0n, 64n * MiB);
const HIGH = AddressRange.of(1n << 32n, 64n * MiB);
const PAGE = 4096;

/** A kernel with other values in some fields of its header. */
function fakeKernel(changes?: HeaderFields): BzImage {
  return parseBzImage(fakeBzImage(changes));
}

/** A guest into which Linux is loaded. */
interface Loaded {
  readonly memory: GuestMemory;
  readonly registers: Partial<CpuRegisters>;
  readonly params: Uint8Array;
  readonly view: DataView;
}

async function load(t: ExecutionContext, options: Partial<LinuxOptions> = {}): Promise<Loaded> {
  const { ram = [LOW], kernel = fakeKernel(), commandLine = 'console=ttyS0', rsdp = 0xe_0000n } = options;
  const memory = await GuestMemory.create({ ram });
  t.teardown(() => memory.close());
  memory.write(0n, new Uint8Array(0x2_0000).fill(0xdd)); // RAM of a guest that has run before
  const set: Partial<CpuRegisters>[] = [];
  const cpu = { setRegisters: (registers: Partial<CpuRegisters>) => void set.push(registers) };
  loadLinux(memory, cpu, { kernel, commandLine, rsdp, ...options, ram });
  const [registers = {}] = set;
  t.is(set.length, 1);
  const params = memory.read(registers.rsi ?? 0n, PAGE);
  return { memory, registers, params, view: new DataView(params.buffer, params.byteOffset) };
}

/** The entries of the memory map. */
function memoryMap({ view }: Loaded): string[] {
  return Array.from({ length: view.getUint8(0x1e8) }, (_, index) => {
    const at = 0x2d0 + 20 * index;
    const range = AddressRange.of(view.getBigUint64(at, true), view.getBigUint64(at + 8, true));
    return `${range} ${view.getUint32(at + 16, true)}`;
  });
}

test('loads the code of the kernel, and the processor starts at its 64-bit entry point', async (t) => {
  const { memory, registers } = await load(t);
  const code = fakeBzImage().subarray(CODE_START);
  t.deepEqual(memory.read(KERNEL.address, code.length), code);
  t.is(registers.rip, KERNEL.address + 0x200n);
});

test('passes boot parameters: the header of the kernel and zeros around it', async (t) => {
  const { params, view } = await load(t);
  t.deepEqual(params.subarray(0, 0x70), new Uint8Array(0x70));
  t.is(view.getUint32(0x202, true), 0x5372_6448);
  t.is(view.getUint32(0x268, true), 0x1234_5678);
  t.deepEqual(params.subarray(0x26c, 0x2d0), new Uint8Array(0x2d0 - 0x26c));
  t.is(view.getUint8(0x1ef), 0, 'the sentinel, which marks parameters with garbage');
  t.is(view.getUint8(0x210), 0xff, 'a loader without a number');
});

test('passes the address of the ACPI tables', async (t) => {
  t.is((await load(t, { rsdp: 0xe_1230n })).view.getBigUint64(0x70, true), 0xe_1230n);
});

test('passes the command line with a terminating zero', async (t) => {
  const { memory, view } = await load(t, { commandLine: 'root=/dev/é' });
  const text = new TextEncoder().encode('root=/dev/é\0');
  t.deepEqual(memory.read(BigInt(view.getUint32(0x228, true)), text.length), text);
});

test('accepts the longest command line of the kernel, and rejects a longer one', async (t) => {
  await load(t, { commandLine: 'x'.repeat(MAX_COMMAND_LINE) });
  const message = 'the command line has 2048 bytes, and the kernel accepts 2047. Shorten --append';
  await t.throwsAsync(load(t, { commandLine: 'x'.repeat(MAX_COMMAND_LINE + 1) }), { message });
  const kernel = fakeKernel({ 0x238: [4, 0xffff_ffff] });
  await t.throwsAsync(load(t, { kernel, commandLine: 'x'.repeat(0x9_0000) }), { message: /accepts 589823\./ });
});

test('passes no initrd unless there is one', async (t) => {
  for (const options of [{}, { initrd: new Uint8Array() }]) {
    const { view } = await load(t, options);
    t.is(view.getBigUint64(0x218, true), 0n);
  }
});

test('loads the initrd at the end of RAM below the limit of the kernel', async (t) => {
  const initrd = Uint8Array.from({ length: 5000 }, (_, at) => at % 241);
  const { memory, view } = await load(t, { initrd, ram: [LOW, HIGH] });
  const start = view.getUint32(0x218, true);
  t.is(start, Number(LOW.end) - 2 * PAGE);
  t.is(view.getUint32(0x21c, true), initrd.length);
  t.deepEqual(memory.read(BigInt(start), initrd.length), initrd);
  const kernel = fakeKernel({ 0x22c: [4, 0x2ff_ffff] });
  t.is((await load(t, { kernel, initrd })).view.getUint32(0x218, true), 0x300_0000 - 2 * PAGE);
});

test('loads the initrd into the highest of several ranges', async (t) => {
  const other = AddressRange.of(0x6000_0000n, 16n * MiB);
  const { view } = await load(t, { ram: [LOW, other], initrd: new Uint8Array(PAGE) });
  t.is(view.getUint32(0x218, true), Number(other.end) - PAGE);
});

test('loads an initrd that fills the RAM behind the kernel, and rejects a larger one', async (t) => {
  const ram = [AddressRange.of(0n, 20n * MiB)];
  const end = KERNEL.address + KERNEL.size;
  const room = Number(20n * MiB - end);
  t.is((await load(t, { ram, initrd: new Uint8Array(room) })).view.getUint32(0x218, true), Number(end));
  const message = 'no RAM beside the kernel has 2097153 bytes for the initrd. Give the guest more with --memory';
  await t.throwsAsync(load(t, { ram, initrd: new Uint8Array(room + 1) }), { message });
});

test('loads no initrd into the first megabyte', async (t) => {
  const ram = [AddressRange.of(0n, MiB), AddressRange.of(KERNEL.address, KERNEL.size)];
  await t.throwsAsync(load(t, { ram, initrd: new Uint8Array(PAGE) }), { message: /no RAM beside the kernel/ });
});

test('rejects a guest whose RAM is too small for the kernel', async (t) => {
  const message = 'the kernel requires RAM at 0x1000000..0x1200000. Give the guest more with --memory';
  await t.throwsAsync(load(t, { ram: [AddressRange.of(0n, KERNEL.address + KERNEL.size - 4096n)] }), { message });
});

test('rejects a kernel that runs below 1 MiB', async (t) => {
  const kernel = fakeKernel({ 0x258: [8, 0n] });
  await t.throwsAsync(load(t, { kernel }), { message: /^the kernel requires RAM at 0x0..0x200000/ });
});

test('changes no memory if a part does not fit', async (t) => {
  const memory = await GuestMemory.create({ ram: [LOW] });
  t.teardown(() => memory.close());
  const cpu = { setRegisters: () => t.fail('registers are set') };
  const reserved = Array.from({ length: 126 }, () => HIGH);
  for (const wrong of [
    { commandLine: 'x'.repeat(4096) },
    { initrd: new Uint8Array(Number(LOW.length)) },
    { reserved },
  ]) {
    const options = { kernel: fakeKernel(), commandLine: '', ram: [LOW], rsdp: 0n, ...wrong };
    t.throws(() => loadLinux(memory, cpu, options), {
      message: /^(the command line|no RAM beside the kernel|the memory map) has/,
    });
  }
  t.true(memory.read(0n, Number(LOW.length)).every((byte) => byte === 0));
});

test('passes a memory map: RAM without the hole below 1 MiB, and reserved ranges', async (t) => {
  const ecam = AddressRange.of(0xe000_0000n, 16n * MiB);
  t.deepEqual(memoryMap(await load(t, { ram: [LOW, HIGH], reserved: [ecam] })), [
    '0x0..0xa0000 1',
    '0xa0000..0x100000 2',
    '0x100000..0x4000000 1',
    '0xe0000000..0xe1000000 2',
    '0x100000000..0x104000000 1',
  ]);
});

test('rejects a memory map with more than 128 ranges', async (t) => {
  const reserved = Array.from({ length: 126 }, (_, at) => AddressRange.of(HIGH.end + BigInt(at) * MiB, MiB));
  const message = 'the memory map has 129 ranges, more than 128';
  await t.throwsAsync(load(t, { reserved }), { message });
  t.is(memoryMap(await load(t, { reserved: reserved.slice(1) })).length, 128);
});

test('maps the first 4 GiB of linear addresses to the physical ones, and no other', async (t) => {
  const { memory, registers } = await load(t);
  const translated = (linear: bigint): bigint | undefined => translate(memory, registers.cr3 ?? 0n, linear);
  for (const linear of [0n, 0x2000n, 0x1f_ffffn, 0x20_0000n, 0x4000_0000n, 0xbfff_ffffn, 0xffff_ffffn]) {
    t.is(translated(linear), linear);
  }
  for (const linear of [1n << 32n, 1n << 38n, 1n << 39n, (1n << 48n) - 1n]) t.is(translated(linear), undefined);
});

test('starts the processor in 64-bit mode, with the segments that Linux requires', async (t) => {
  const { memory, registers } = await load(t);
  const { cr0 = 0n, cr4 = 0n, efer = 0n, rflags, gdt, cs, ...others } = registers;
  t.is(cr0 & 0x8000_0001n, 0x8000_0001n, 'paging and protection');
  t.is(cr0 & 0x6000_0000n, 0n, 'the caches are on');
  t.is(cr4 & 0x20n, 0x20n);
  t.is(efer, 0x500n);
  t.is(rflags, 2n, 'interrupts are disabled');
  t.deepEqual(cs, { base: 0n, limit: 0xffff_ffff, selector: 0x10, rights: 0xa09b });
  const data = { base: 0n, limit: 0xffff_ffff, selector: 0x18, rights: 0xc093 };
  const { ds, es, fs, gs, ss } = others;
  for (const segment of [ds, es, fs, gs, ss]) t.deepEqual(segment, data);
  t.is(gdt?.limit, 31);
  const descriptors = [0x10n, 0x18n].map((selector) => memory.read64((gdt?.base ?? 0n) + selector));
  t.deepEqual(descriptors, [0x00af_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn]);
});

/** Walks page tables of four levels, whose last ones have pages of 2 MiB. */
function translate(memory: GuestMemory, top: bigint, linear: bigint): bigint | undefined {
  let table = top;
  for (const shift of [39n, 30n, 21n]) {
    const entry = memory.read64(table + ((linear >> shift) & 511n) * 8n);
    if ((entry & 1n) === 0n) return undefined;
    table = entry & 0xf_ffff_ffff_f000n;
    if ((entry & 0x80n) !== 0n) return table + (linear & 0x1f_ffffn);
  }
  throw new Error('no large page');
}
