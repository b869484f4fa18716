/**
 * Accesses that a VMM emulates: registers that are not mapped in the guest, and the MSI-X table.
 */
import { GuestBar } from '../../../examples/guest/bar.ts';
import { testWith } from '../support/devices.ts';
import { Guest, HIGH, LOW, holders, ones, physicalBar } from './support/guest.ts';

const MSIX = 0x11;

testWith(
  { edu: 1 },
  "an edu's registers are read and written at the guest address of its BAR",
  async (t, { edu: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const { device, firmware } = await guest.assign(bdf);
    t.deepEqual(device.mmioRead(LOW, 4), ones(4), 'not placed');
    await firmware.place(0, LOW);
    t.deepEqual(device.mmioRead(LOW, 4), ones(4), 'memory decode is off');
    await firmware.enable();
    const registers = new GuestBar(device, LOW);
    t.is(registers.read32(0n), 0x0100_00ed, 'the identification');
    registers.write32(4n, 0x1234_5678);
    t.is(registers.read32(4n), ~0x1234_5678 >>> 0, 'the liveness check');
    registers.write64(0x80n, 0x1122_3344_5566_7788n);
    t.is(registers.read64(0x80n), 0x1122_3344_5566_7788n, 'eight bytes at once');
    t.deepEqual(device.mmioRead(LOW + 0x10_0000n, 8), ones(8), 'behind it');
    await firmware.place(0, LOW + 0x10_0000n);
    t.is(registers.read32(0n), 0xffff_ffff, 'the old address');
    t.is(new GuestBar(device, LOW + 0x10_0000n).read64(0x80n), 0x1122_3344_5566_7788n);
  },
);

testWith(
  { ivshmem: 1 },
  "an ivshmem's registers are less than a page: they are trapped, not mapped",
  async (t, { ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const { device, firmware } = await guest.assign(bdf);
    await firmware.place(0, LOW + 0x100n); // not at the start of a page
    await firmware.place(2, HIGH);
    await firmware.enable();
    const status = device.status().find(({ bar }) => bar === 0);
    t.deepEqual(status?.mapped, []);
    t.is(status?.trapped[0]?.range.toString(), '0x80000100..0x80000200');
    t.deepEqual(holders(guest.memory, LOW), []);
    const registers = new GuestBar(device, LOW + 0x100n);
    registers.write32(0n, 0xa5a5_0001); // the interrupt mask
    t.is(registers.read32(0n), 0xa5a5_0001);
    t.deepEqual(device.mmioRead(LOW + 0x200n, 8), ones(8));
    t.deepEqual(device.mmioRead(LOW + 0xfcn, 4), ones(4));
    // The VMM can access the memory BAR as guest memory too.
    guest.memory.write(HIGH + 0x10n, new Uint8Array(7));
    guest.memory.write(HIGH + 0x11n, Uint8Array.of(1, 2, 3, 4, 5));
    t.deepEqual(guest.memory.read(HIGH + 0x10n, 7), Uint8Array.of(0, 1, 2, 3, 4, 5, 0));
    t.deepEqual(device.mmioRead(HIGH + 0x10n, 7), Uint8Array.of(0, 1, 2, 3, 4, 5, 0));
    // The longest access, at an odd address and across a page, in the memory.
    const bytes = Uint8Array.from({ length: 4096 }, (_, index) => (index * 13 + 1) & 0xff);
    device.mmioWrite(HIGH + 0xffdn, bytes);
    t.deepEqual(device.mmioRead(HIGH + 0xffdn, bytes.length), bytes);
  },
);

testWith(
  { nvme: 1 },
  "an nvme's registers are trapped beside the MSI-X table, which is emulated",
  async (t, { nvme: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const peer = await guest.assign(bdf);
    const { device, firmware } = peer;
    await firmware.place(0, LOW);
    await firmware.enable();
    const bar = new GuestBar(device, LOW);
    const hardware = physicalBar(peer, 0);
    t.is(bar.read64(0n), hardware.read64(0n), 'capabilities of the controller');
    t.is(bar.read32(8n), hardware.read32(8n), 'its version');
    t.is(bar.read32(8n) >>> 16, 1);
    t.deepEqual(guest.memory.read(LOW + 8n, 4), device.mmioRead(LOW + 8n, 4), 'by guest memory, in one access');

    const capability = firmware.capability(MSIX);
    const vectors = (device.configRead(capability + 2, 2) & 0x7ff) + 1;
    const where = device.configRead(capability + 4, 4);
    t.is(where & 7, 0, 'the table is in this BAR');
    const table = BigInt(where & ~7);
    const physically = hardware.read(table, 16 * vectors);
    for (let vector = 0n; vector < vectors; vector++) {
      t.is(bar.read64(table + 16n * vector), 0n, 'no address');
      t.is(bar.read32(table + 16n * vector + 12n), 1, 'masked');
    }
    bar.write64(table + 16n, 0xfee0_1000n);
    bar.write32(table + 24n, 0x4021);
    t.deepEqual([bar.read64(table + 16n), bar.read32(table + 24n)], [0xfee0_1000n, 0x4021]);
    t.deepEqual(device.interrupts.vector('msix', 1).message, { address: 0xfee0_1000n, data: 0x4021 });
    t.deepEqual(hardware.read(table, 16 * vectors), physically, 'the table of the device itself is unchanged');

    const page = LOW + table - (table % 0x1000n);
    const status = device.status().find(({ bar: index }) => index === 0);
    t.true(
      status?.mapped.every((range) => !range.contains(page)),
      'its pages are not guest memory',
    );
    t.true(status?.trapped.some(({ range }) => range.contains(page)));
    t.deepEqual(holders(guest.memory, page), [], 'nor in an IOMMU');
    t.is(holders(guest.memory, LOW).length, 1, 'the registers before it are');
  },
);
