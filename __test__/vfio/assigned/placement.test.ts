/**
 * BARs over RAM or beyond an IOMMU's reach: the device works, and its status reports the problem.
 */
import { AddressRange } from '../../../ts/index.ts';
import { RAM_LENGTH, RAM_START, SINK, pattern } from '../support/rig.ts';
import { rejectsCode } from '../../support/errors.ts';
import { testWith } from '../support/devices.ts';
import { Guest, HIGH, LOW, holders } from './support/guest.ts';

/** The window for the interrupts of devices, which an IOMMU cannot map. */
const INTERRUPTS = AddressRange.of(0xfee0_0000n, 0x10_0000n);

testWith(
  { edu: 1, ivshmem: 1 },
  'RAM hides a BAR that is placed below it until the BAR moves away',
  async (t, devices) => {
    const guest = await Guest.start(t);
    const engine = await guest.engine(devices.edu[0] ?? '');
    const peer = await guest.assign(devices.ivshmem[0] ?? '');
    const bar2 = () => peer.device.status().find(({ bar }) => bar === 2);
    await peer.firmware.place(2, RAM_START);
    await peer.firmware.enable();
    const ram = AddressRange.of(RAM_START, RAM_LENGTH);
    const { hidden = [], unreachable } = bar2() ?? {};
    t.deepEqual([hidden.map(({ range }) => range.toString()), unreachable], [[ram.toString()], []]);
    t.is(hidden[0]?.by, guest.memory.inspect().flat[0]?.region);

    await engine.send(pattern(61), SINK);
    t.deepEqual(guest.memory.read(SINK, 2048), pattern(61), 'RAM takes the bytes');
    t.false(await engine.reaches(peer, SINK & ~0xffffn), 'and the BAR does not');
    const behind = RAM_START + RAM_LENGTH;
    await engine.send(pattern(62), behind);
    t.deepEqual(peer.device.mmioRead(behind, 2048), pattern(62), 'devices reach it above RAM');

    await peer.firmware.place(2, HIGH);
    t.deepEqual([bar2()?.hidden, bar2()?.range?.start], [[], HIGH]);
    t.true(await engine.reaches(peer, HIGH));
    t.deepEqual(await engine.fetch(HIGH + RAM_LENGTH, 2048), pattern(62), 'with its bytes');
    await engine.send(pattern(63), behind);
    t.deepEqual(peer.device.mmioRead(HIGH + RAM_LENGTH, 2048), pattern(62), 'nothing is left at the old address');
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'a BAR in the interrupt window is unreachable, which its status reports, and the device works',
  async (t, { edu: [first = '', second = ''], ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const engine = await guest.engine(first);
    const neighbour = await guest.engine(second);
    const peer = await guest.assign(bdf);
    const container = guest.manager.inspect().containers[0]?.name;

    // A peer that is reachable in part, …
    await peer.firmware.place(2, 0xfe00_0000n);
    await peer.firmware.enable();
    const bar2 = peer.device.status().find(({ bar }) => bar === 2);
    t.is(bar2?.range?.start, 0xfe00_0000n);
    t.like(bar2?.unreachable, [{ target: container, state: 'failed', code: 'ERR_IOVA_UNREACHABLE' }]);
    t.regex(bar2?.unreachable[0]?.reason ?? '', /0x0\.\.0xfee00000/, 'the message names the possible ranges');
    t.false(await engine.reaches(peer, 0xfe00_0000n));
    peer.device.mmioWrite(0xfe00_0000n, pattern(64));
    t.deepEqual(peer.device.mmioRead(0xfe00_0000n, 2048), pattern(64), 'the processor reaches it');
    await peer.firmware.place(2, HIGH);
    t.deepEqual(peer.device.status().find(({ bar }) => bar === 2)?.unreachable, []);
    t.deepEqual(await engine.fetch(HIGH, 2048), pattern(64), 'at another address devices reach it too');

    // … and the device itself, which still does DMA.
    await engine.assigned.firmware.place(0, INTERRUPTS.start);
    const moved = engine.assigned.device.status().find(({ bar }) => bar === 0);
    t.like(moved?.unreachable, [{ target: container, code: 'ERR_IOVA_UNREACHABLE' }]);
    t.deepEqual(holders(guest.memory, INTERRUPTS.start), []);
    t.is(Buffer.from(engine.assigned.device.mmioRead(INTERRUPTS.start, 4)).readUInt32LE(), 0x0100_00ed);
    const there = engine.at(INTERRUPTS.start);
    await there.send(pattern(65), SINK);
    t.deepEqual(guest.memory.read(SINK, 2048), pattern(65), 'DMA to RAM');
    t.true(await there.reaches(peer, HIGH), "and to a peer's BAR");
    t.true(await neighbour.reaches(peer, HIGH), 'as its neighbours do');
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'if peer-to-peer is required, a move out of reach fails and restores everything',
  async (t, { edu: [first = '', second = ''], ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const engines = [await guest.engine(first), await guest.engine(second, { manager: guest.newManager('required') })];
    const peer = await guest.assign(bdf);
    const { device, firmware } = peer;
    await firmware.place(2, LOW);
    await firmware.enable();
    const before = [device.inspect(), guest.memory.inspect()];
    const error = await rejectsCode(t, firmware.place(2, 0xfe00_0000n), 'ERR_IOVA_UNREACHABLE');
    t.regex(error.message, /0xfe000000/);
    t.deepEqual([device.inspect(), guest.memory.inspect()], before);
    t.is(firmware.addressOf(2), LOW, 'the guest reads the address at which it is');
    for (const engine of engines) t.true(await engine.reaches(peer, LOW));
    await firmware.place(2, HIGH);
    for (const engine of engines)
      t.deepEqual([await engine.reaches(peer, LOW), await engine.reaches(peer, HIGH)], [false, true]);
  },
);
