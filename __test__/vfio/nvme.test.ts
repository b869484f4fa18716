/**
 * A guest drives a disk. Queues and data are in guest memory, interrupts by MSI-X, BARs where its firmware places them.
 */
import type { ExecutionContext } from 'ava';
import { randomFillSync } from 'node:crypto';
import { readdirSync } from 'node:fs';
import { release } from 'node:os';
import { NvmeCommandError } from '../../examples/devices/nvme/commands.ts';
import { Nvme } from '../../examples/devices/nvme.ts';
import { type Assigned, Guest, HIGH, HIGHER, LOW, holders } from './assigned/support/guest.ts';
import { testWith } from './support/devices.ts';
import { until } from '../support/until.ts';
import { eventFiles, openVfioFiles } from './support/open-files.ts';
import { pinnedAtRest } from './support/pins.ts';
import { RAM_LENGTH, RAM_START, pattern } from './support/rig.ts';

/** The guest RAM of the driver: its queues, and its data. */
const WORKSPACE = RAM_START + 0x8_0000n;
const SOURCE = RAM_START + 0x10_0000n;
const SINK = RAM_START + 0x20_0000n;

/** The blocks of the testbed's disk, which no other test writes. */
const BLOCK = 512;
const BLOCKS = 131_072n;

/** Generic status "LBA out of range" (NVM Express Base Specification, 4.2.3.1). */
const LBA_OUT_OF_RANGE = 0x80;

interface Disk {
  readonly guest: Guest;
  readonly assigned: Assigned;
  readonly nvme: Nvme;
}

/** A disk that is assigned to the guest, its BARs from `address` on. Closed when the test ends. */
async function start(t: ExecutionContext, bdf: string, bars: bigint = LOW): Promise<Disk> {
  const guest = await Guest.start(t);
  const assigned = await guest.assign(bdf);
  return { guest, assigned, nvme: await drive(guest, assigned, bars) };
}

async function drive({ memory }: Guest, { device, firmware }: Assigned, bars: bigint): Promise<Nvme> {
  await firmware.placeAll(bars);
  await firmware.enable();
  return Nvme.open({ device, firmware, memory, workspace: WORKSPACE });
}

/** Addresses of pages of RAM that have changed, except some parts. */
function changed(
  { memory }: Guest,
  before: Buffer,
  ...except: readonly (readonly [start: bigint, length: number])[]
): string[] {
  const now = memory.read(RAM_START, before.length);
  for (const [start, length] of except) {
    const at = Number(start - RAM_START);
    now.set(before.subarray(at, at + length), at);
  }
  const found: string[] = [];
  for (let at = 0; at < now.length; at += BLOCK) {
    if (before.compare(now, at, at + BLOCK, at, at + BLOCK) !== 0) found.push((RAM_START + BigInt(at)).toString(16));
  }
  return found;
}

testWith({ nvme: 1 }, 'a disk identifies itself to the guest', async (t, { nvme: [bdf = ''] }) => {
  const { nvme } = await start(t, bdf);
  const { controller, namespace } = await nvme.identify();
  t.is(controller.serial, 'testbed');
  t.is(controller.model, 'QEMU NVMe Ctrl');
  t.deepEqual(namespace, { id: 1, blocks: BLOCKS, blockLength: BLOCK });
  // Identify four times, the number of queues, and the creation of two queues.
  t.deepEqual(nvme.interrupts, { admin: 7n, blocks: 0n });
});

testWith(
  { nvme: 1 },
  'blocks that the guest writes to a disk are read back, and no other RAM changes',
  async (t, { nvme: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const { memory } = guest;
    const before = randomFillSync(Buffer.alloc(Number(RAM_LENGTH)));
    memory.write(RAM_START, before);
    const nvme = await drive(guest, await guest.assign(bdf), LOW);
    const parts = [
      [WORKSPACE, Number(Nvme.WORKSPACE)],
      [SINK + 0x204n, 3 * BLOCK],
      [SINK + 0x2200n, 15 * BLOCK],
    ] as const;
    const zeros = new Uint8Array(BLOCK);
    for (const block of [99n, 103n]) {
      memory.write(SOURCE, zeros);
      await nvme.write(block, 1, SOURCE);
    }
    const bytes = pattern(22, 3 * BLOCK);
    memory.write(SOURCE, bytes);
    await nvme.write(100n, 3, SOURCE);
    const many = pattern(23, 16 * BLOCK);
    memory.write(SOURCE, many);
    await nvme.write(BLOCKS - 16n, 16, SOURCE);
    const source = Number(SOURCE - RAM_START);
    memory.write(SOURCE, before.subarray(source, source + many.length));

    // Not at the start of a page.
    await nvme.read(100n, 3, SINK + 0x204n);
    t.deepEqual(memory.read(SINK + 0x204n, bytes.length), bytes);
    // The disk's last blocks but one: two pages, from the second block of the first one on.
    await t.throwsAsync(nvme.read(BLOCKS - 16n, 16, SINK + 0x2200n), { instanceOf: RangeError }, 'in three pages');
    await nvme.read(BLOCKS - 16n, 15, SINK + 0x2200n);
    t.deepEqual(memory.read(SINK + 0x2200n, 15 * BLOCK), many.subarray(0, 15 * BLOCK));
    t.deepEqual(changed(guest, before, ...parts), []);
    for (const block of [99n, 103n]) {
      await nvme.read(block, 1, SINK);
      t.deepEqual(memory.read(SINK, BLOCK), zeros, `block ${block}, beside them`);
    }
  },
);

testWith(
  { nvme: 1 },
  'each command that a disk completes interrupts, with one or several in progress',
  async (t, { nvme: [bdf = ''] }) => {
    const { guest, nvme } = await start(t, bdf);
    const blocks = Array.from({ length: 40 }, (_, index) => 200n + BigInt(index));
    const place = (base: bigint, block: bigint) => base + (block % 40n) * BigInt(BLOCK);
    const content = (block: bigint) => pattern(Number(block), BLOCK);
    for (const block of blocks) {
      guest.memory.write(place(SOURCE, block), content(block));
      await nvme.write(block, 1, place(SOURCE, block));
    }
    t.is(nvme.interrupts.blocks, 40n, 'one by one');
    const before = nvme.interrupts.blocks;
    // A queue of 16 entries takes 15, which complete in any order.
    for (let first = 0; first < blocks.length; first += 15) {
      const batch = blocks.slice(first, first + 15);
      await Promise.all(batch.map((block) => nvme.read(block, 1, place(SINK, block))));
    }
    for (const block of blocks) t.deepEqual(guest.memory.read(place(SINK, block), BLOCK), content(block), `${block}`);
    const several = nvme.interrupts.blocks - before;
    t.true(several >= 3n && several <= 40n, `${several}: several commands are in progress`);
    const full = Array.from({ length: 16 }, () => nvme.read(200n, 1, SINK));
    const outcomes = await Promise.allSettled(full);
    t.deepEqual(
      outcomes.map(({ status }) => status),
      [...Array.from({ length: 15 }, () => 'fulfilled'), 'rejected'],
    );
  },
);

testWith(
  { nvme: 1 },
  'a masked vector keeps its message pending while the disk completes a command',
  async (t, { nvme: [bdf = ''] }) => {
    const { guest, nvme } = await start(t, bdf);
    const bytes = pattern(31, BLOCK);
    guest.memory.write(SOURCE, bytes);
    await nvme.write(300n, 1, SOURCE);
    const before = nvme.interrupts.blocks;
    nvme.msix.mask(1, true);
    let done = false;
    const reading = nvme.read(300n, 1, SINK).then(() => (done = true));
    await until(() => nvme.msix.pending(1), 'the message is pending');
    await nvme.identify();
    t.deepEqual(guest.memory.read(SINK, BLOCK), bytes, 'the block is in RAM');
    t.false(done, 'but the guest has masked the vector');
    t.is(nvme.interrupts.blocks, before);
    nvme.msix.mask(1, false);
    await reading;
    t.is(nvme.interrupts.blocks, before + 1n);

    nvme.msix.mask(1, true);
    const never = t.throwsAsync(nvme.read(300n, 1, SINK), { message: /turned off before command 0x2 was done/ });
    await nvme.close();
    await never;
  },
);

testWith(
  { nvme: 1 },
  'a vector takes no resources until the guest unmasks it, and its message pends in the disk',
  async (t, { nvme: [bdf = ''] }) => {
    const { assigned, nvme } = await start(t, bdf);
    const { msix } = nvme;
    await msix.disable();
    msix.mask(1, true);
    const before = eventFiles();
    await msix.enable(1);
    // The first one has its eventfd from before.
    t.is(eventFiles(), before);
    // Older kernels allocate all vectors when MSI-X is enabled.
    const taken = canAddVectors() ? 1 : msix.vectors;
    t.is(hostInterrupts(bdf), taken);

    const delivered = nvme.interrupts.blocks;
    for (let round = 0; round < 3; round++) {
      let done = false;
      const reading = nvme.read(0n, 1, SINK).then(() => (done = true));
      await until(() => msix.pending(1), 'the message is pending in the disk');
      t.false(assigned.device.interrupts.vector('msix', 1).enabled);
      await nvme.identify();
      t.false(done);
      t.deepEqual([eventFiles(), hostInterrupts(bdf)], [before, taken]);
      msix.mask(1, false);
      await reading;
      t.false(msix.pending(1));
      t.is(nvme.interrupts.blocks, delivered + BigInt(round + 1), 'one message');
      t.is(hostInterrupts(bdf), Math.max(taken, 2));
      await msix.disable();
      msix.mask(1, true);
      await msix.enable(1);
      t.is(hostInterrupts(bdf), taken, 'given back');
    }
  },
);

/** The number of host interrupts of a device. */
function hostInterrupts(bdf: string): number {
  return readdirSync(`/sys/bus/pci/devices/${bdf}/msi_irqs`).length;
}

/** Since Linux 6.4, vectors can be added while MSI-X is enabled. */
function canAddVectors(): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  return major > 6 || (major === 6 && minor >= 4);
}

testWith({ nvme: 1 }, 'a command that a disk rejects fails with its status', async (t, { nvme: [bdf = ''] }) => {
  const { nvme } = await start(t, bdf);
  const error = await t.throwsAsync(nvme.read(BLOCKS, 1, SINK), { instanceOf: NvmeCommandError });
  t.deepEqual([error?.statusType, error?.status], [0, LBA_OUT_OF_RANGE]);
  await nvme.read(BLOCKS - 1n, 1, SINK);
  t.is(nvme.interrupts.blocks, 2n);
});

testWith(
  { nvme: 1, ivshmem: 1 },
  "a disk's block is written directly to another device's BAR at its current address",
  async (t, devices) => {
    const { guest, nvme } = await start(t, devices.nvme[0] ?? '');
    const peer = await guest.assign(devices.ivshmem[0] ?? '');
    await peer.firmware.place(2, HIGH);
    await peer.firmware.enable();
    const content = (seed: number) => pattern(seed, BLOCK);
    for (const seed of [41, 42, 43]) {
      guest.memory.write(SOURCE, content(seed));
      await nvme.write(BigInt(seed), 1, SOURCE);
    }
    const arrived = (at: bigint) => peer.device.mmioRead(at + 0x3000n, BLOCK);
    await nvme.read(41n, 1, HIGH + 0x3000n);
    t.deepEqual(arrived(HIGH), content(41));
    await peer.firmware.place(2, HIGHER);
    // An address without memory. The result that the controller reports is not specified.
    await nvme.read(42n, 1, HIGH + 0x3000n).catch(() => {});
    t.deepEqual(arrived(HIGHER), content(41), 'not at the old address of the BAR');
    await nvme.read(43n, 1, HIGHER + 0x3000n);
    t.deepEqual(arrived(HIGHER), content(43));
    // And from there to the disk.
    await nvme.write(44n, 1, HIGHER + 0x3000n);
    await nvme.read(44n, 1, SINK);
    t.deepEqual(guest.memory.read(SINK, BLOCK), content(43));
  },
);

testWith({ nvme: 1 }, 'a driver continues after firmware moves the BARs of a disk', async (t, { nvme: [bdf = ''] }) => {
  const { guest, assigned, nvme } = await start(t, bdf);
  guest.memory.write(SOURCE, pattern(51, BLOCK));
  await nvme.write(400n, 1, SOURCE);
  await nvme.close();
  await nvme.close();
  const again = await drive(guest, assigned, HIGH);
  t.deepEqual(holders(guest.memory, LOW), []);
  t.is(assigned.firmware.addressOf(0), HIGH);
  await again.read(400n, 1, SINK);
  t.deepEqual(guest.memory.read(SINK, BLOCK), pattern(51, BLOCK));
  t.deepEqual(again.interrupts, { admin: 5n, blocks: 1n });
});

testWith({ nvme: 1 }, 'a disk that is closed leaves no mapping behind', async (t, { nvme: [bdf = ''] }) => {
  const before = await pinnedAtRest();
  const { guest, assigned, nvme } = await start(t, bdf);
  await nvme.read(0n, 1, SINK);
  t.is((await pinnedAtRest()) - before, Number(RAM_LENGTH) / 4096, 'the guest has its RAM pinned');
  t.true(guest.memory.inspect().flat.length > 1);
  await nvme.close();
  await guest.remove(assigned);
  const { flat, targets, quarantine } = guest.memory.inspect();
  t.deepEqual(
    flat.map(({ region }) => region),
    ['ram0'],
  );
  t.deepEqual([targets, quarantine, guest.manager.inspect().containers, openVfioFiles()], [[], [], [], []]);
  t.is(await pinnedAtRest(), before);
});
