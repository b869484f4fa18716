/**
 * A small guest drives two assigned devices, which copy from one into the other.
 */
import type { ExecutionContext } from 'ava';
import { readFileSync } from 'node:fs';
import {
  AddressRange,
  AssignedDevice,
  type BarsOptions,
  PciHostBridge,
  VfioContainerManager,
} from '../../../ts/index.ts';
import { newManager } from '../support/backend.ts';
import { testWith } from '../support/devices.ts';
import { Code } from './support/machine-code.ts';
import { BAR0, BAR2, BUS_MASTER, COMMAND, EDU_BUFFER, MEMORY, configure, transfer } from './support/pci-code.ts';
import { END_PORT, FREE, type SmallGuest, smallGuest } from './support/small-guest.ts';

const VALUE = 0x8877_6655_4433_2211n;
const ENABLED = MEMORY | BUS_MASTER;
/** Guest addresses of the edu's registers, and of ivshmem's memory before and after its move. */
const EDU = 0xc000_0000n;
const SHARED = 0xd000_0000n;
const MOVED = 0xd800_0000n;
const WINDOW = AddressRange.of(0xc000_0000n, 0x2000_0000n);
/** Numbers of the devices on the bus. */
const EDU_DEVICE = 1;
const IVSHMEM_DEVICE = 2;

interface Devices {
  readonly bridge: PciHostBridge;
  readonly manager: VfioContainerManager;
  readonly ivshmem: AssignedDevice;
}

/** Opens both devices and puts them on the guest's bus. @param bars options of ivshmem's BARs */
async function attach(
  t: ExecutionContext,
  { vm, memory }: SmallGuest,
  edu: string,
  ivshmem: string,
  bars: BarsOptions = {},
): Promise<Devices> {
  const bridge = new PciHostBridge({ memory, windows: [WINDOW] });
  vm.attach(bridge);
  const manager = newManager(memory);
  t.teardown(() => manager.close());
  const assign = async (bdf: string, address: string, options: BarsOptions = {}): Promise<AssignedDevice> => {
    const device = await AssignedDevice.create({ device: await manager.open(bdf), memory, bars: options });
    bridge.add(address, device);
    t.teardown(async () => {
      bridge.remove(address);
      await device.close();
    });
    return device;
  };
  await assign(edu, '00:01.0');
  return { bridge, manager, ivshmem: await assign(ivshmem, '00:02.0', bars) };
}

/** Places and enables both devices. */
function placeDevices(code: Code): Code {
  configure(configure(code, EDU_DEVICE, BAR0, EDU), EDU_DEVICE, COMMAND, ENABLED);
  configure(code, IVSHMEM_DEVICE, BAR2, SHARED);
  configure(code, IVSHMEM_DEVICE, BAR2 + 4, 0n);
  return configure(code, IVSHMEM_DEVICE, COMMAND, ENABLED);
}

/** Copies 8 bytes from RAM into the edu, and from there to an address. */
function copy(code: Code, target: bigint): Code {
  transfer(code, EDU, { source: FREE, target: EDU_BUFFER, count: 8n });
  return transfer(code, EDU, { source: EDU_BUFFER, target, count: 8n });
}

const read = (code: Code, from: bigint, to: bigint): Code => code.rbx(from).load(8).rbx(to).store(8);

testWith(
  { edu: 1, ivshmem: 1 },
  'KVM: devices of a guest copy into RAM and into one another, before and after a BAR moves',
  async (t, { edu: [edu = ''], ivshmem: [ivshmem = ''] }) => {
    const code = placeDevices(new Code());
    copy(code, FREE + 0x100n);
    read(copy(code, SHARED + 0x1000n), SHARED + 0x1000n, FREE + 0x200n).out(END_PORT);
    // The guest moves the BAR: decode off, another address, decode on.
    configure(configure(code, IVSHMEM_DEVICE, COMMAND, 0n), IVSHMEM_DEVICE, BAR2, MOVED);
    configure(code, IVSHMEM_DEVICE, COMMAND, ENABLED);
    read(copy(code, MOVED + 0x2000n), MOVED + 0x2000n, FREE + 0x300n);
    read(copy(code, SHARED + 0x3000n), MOVED + 0x3000n, FREE + 0x400n).out(END_PORT);
    const guest = await smallGuest(t, code);
    const { vm, memory } = guest;
    await attach(t, guest, edu, ivshmem);
    memory.write64(FREE, VALUE);
    t.is(await vm.run(), 'end');
    t.is(memory.read64(FREE + 0x100n), VALUE, 'RAM to RAM');
    t.is(memory.read64(FREE + 0x200n), VALUE, 'RAM to the BAR');
    t.is(vm.inspect().exits.memory, 0);
    memory.write64(SHARED + 0x3000n, 0n);
    memory.write64(FREE, ~VALUE & 0xffff_ffff_ffff_ffffn);
    t.is(await vm.run(), 'end');
    t.is(memory.read64(FREE + 0x300n), ~VALUE & 0xffff_ffff_ffff_ffffn, 'the new address');
    t.is(memory.read64(FREE + 0x400n), 0n, 'the old address takes no byte');
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'KVM: a device that is removed while its guest runs is unmapped, unpinned and closed',
  async (t, { edu: [edu = ''], ivshmem: [ivshmem = ''] }) => {
    const code = placeDevices(new Code()).out(0x510);
    const loop = code.length;
    read(code, SHARED, FREE + 0x100n).jump(loop);
    const guest = await smallGuest(t, code);
    const { vm, memory } = guest;
    const { bridge, ivshmem: device } = await attach(t, guest, edu, ivshmem);
    const placed = new Promise<void>((resolve) => vm.ports.add(0x510, 1, { read: () => 0, write: () => resolve() }));
    const run = vm.run();
    await placed;
    const slots = vm.inspect().slots;
    bridge.remove('00:02.0');
    await device.close();
    t.is(vm.inspect().slots, slots - 1);
    t.false(readFileSync('/proc/self/maps', 'utf8').includes(ivshmem));
    while (memory.read64(FREE + 0x100n) !== 0xffff_ffff_ffff_ffffn)
      await new Promise((resolve) => setImmediate(resolve));
    vm.stop('removed');
    t.is(await run, 'removed');
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'KVM: a BAR with mmap: false traps in the guest and takes DMA, and one with peerToPeer: false does the opposite',
  async (t, { edu: [edu = ''], ivshmem: [ivshmem = ''] }) => {
    for (const [options, traps] of [
      [{ mmap: false }, true],
      [{ peerToPeer: false }, false],
    ] as const) {
      const code = placeDevices(new Code());
      // The processor writes, the device copies over half of it, and the processor reads both.
      code
        .rax(VALUE)
        .rbx(SHARED + 0x1000n)
        .store(8)
        .rbx(SHARED + 0x1008n)
        .store(8);
      copy(code, SHARED + 0x1008n);
      read(read(code, SHARED + 0x1000n, FREE + 0x100n), SHARED + 0x1008n, FREE + 0x200n).out(END_PORT);
      const guest = await smallGuest(t, code);
      const { vm, memory } = guest;
      const { ivshmem: device, bridge, manager } = await attach(t, guest, edu, ivshmem, { 2: options });
      memory.write64(FREE, 0x1234n);
      t.is(await vm.run(), 'end');
      t.is(memory.read64(FREE + 0x100n), VALUE, 'the guest reads what it wrote');
      t.is(memory.read64(FREE + 0x200n), traps ? 0x1234n : VALUE, 'DMA of the other device arrives, or not');
      t.is(vm.inspect().exits.memory, traps ? 4 : 0);
      const reasons = device.status().flatMap(({ unreachable }) => unreachable.map(({ target }) => target === 'kvm'));
      t.deepEqual(reasons, [traps]);
      for (const address of ['00:02.0', '00:01.0']) bridge.remove(address);
      await vm.close();
      await manager.close();
    }
  },
);
