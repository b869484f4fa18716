/**
 * Other devices reach a BAR exactly at its guest address and while its decode is on. Real DMA checks it at every step.
 * While the guest has decode off, the test turns it on in the device, so that only the IOMMU can stop the bytes.
 */
import type { ExecutionContext } from 'ava';
import { barRegister } from '../../../examples/guest/firmware.ts';
import { RAM_START, SOURCE } from '../support/rig.ts';
import { testWith } from '../support/devices.ts';
import type { Engine } from './support/engine.ts';
import { type Assigned, Guest, HIGH, HIGHER, LOW, holders, mapped } from './support/guest.ts';

/** The address after a write to one half of a 64-bit BAR only. */
const BETWEEN = (HIGH & ~0xffff_ffffn) | (HIGHER & 0xffff_ffffn);
const NOWHERE = 'nowhere';

/** Checks at which of some addresses engines in containers of their own reach BAR 2 of a device. */
function look(t: ExecutionContext, guest: Guest, engines: readonly Engine[], peer: Assigned, places: bigint[]) {
  return async (expected: bigint | typeof NOWHERE, when: string): Promise<void> => {
    for (const place of places) {
      const found: boolean[] = await Promise.all(engines.map((engine) => engine.reaches(peer, place)));
      t.deepEqual(
        found,
        engines.map(() => place === expected),
        `${when}: 0x${place.toString(16)}`,
      );
      t.is(holders(guest.memory, place).length, place === expected ? engines.length : 0, when);
    }
    t.is(peer.device.status().find(({ bar }) => bar === 2)?.range?.start ?? NOWHERE, expected, when);
  };
}

testWith(
  { edu: 2, ivshmem: 1 },
  'devices reach a BAR at its guest address while its decode is on',
  async (t, { edu: [first = '', second = ''], ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const other = guest.newManager();
    const engines = [await guest.engine(first), await guest.engine(second, { manager: other })];
    const peer = await guest.assign(bdf);
    const { firmware } = peer;
    const bar2 = look(t, guest, engines, peer, [LOW, HIGH]);
    const ram = guest.memory.read(RAM_START, Number(SOURCE - RAM_START));
    const without = mapped(guest.manager, other);

    await firmware.place(2, LOW);
    await bar2(NOWHERE, 'placed, decode off');
    await firmware.enable();
    await bar2(LOW, 'on');
    t.deepEqual(
      mapped(guest.manager, other),
      without.map((count) => count + 1),
      "in the kernel's count",
    );
    await firmware.disable();
    await bar2(NOWHERE, 'off');
    t.deepEqual(mapped(guest.manager, other), without);
    await firmware.enable();
    await bar2(LOW, 'on again');
    await firmware.place(2, HIGH);
    await bar2(HIGH, 'moved with decode on');
    await firmware.disable();
    await bar2(NOWHERE, 'off there');
    await firmware.place(2, LOW);
    await bar2(NOWHERE, 'moved with decode off');
    await firmware.enable();
    await bar2(LOW, 'decode on at the new address');
    await peer.device.configWrite(4, 1, 0);
    await bar2(NOWHERE, 'decode and bus mastering off');
    t.deepEqual(mapped(guest.manager, other), without);
    t.is(Buffer.compare(guest.memory.read(RAM_START, ram.length), ram), 0, 'RAM took none of the bytes');
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'the halves of a 64-bit BAR are written one after the other while decode is on',
  async (t, { edu: [first = '', second = ''], ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const engines = [await guest.engine(first), await guest.engine(second, { manager: guest.newManager() })];
    const peer = await guest.assign(bdf);
    const { device, firmware } = peer;
    const bar2 = look(t, guest, engines, peer, [HIGH, BETWEEN, HIGHER]);
    await firmware.place(2, HIGH);
    await firmware.enable();
    await bar2(HIGH, 'at first');
    await device.configWrite(barRegister(2), 4, Number(HIGHER & 0xffff_ffffn));
    await bar2(BETWEEN, 'the lower half');
    await device.configWrite(barRegister(3), 4, Number(HIGHER >> 32n));
    await bar2(HIGHER, 'the upper half');
    // Neither is awaited: they take effect in the order of the calls.
    const back = [
      device.configWrite(barRegister(3), 4, Number(HIGH >> 32n)),
      device.configWrite(barRegister(2), 4, Number(HIGH & 0xffff_ffffn)),
    ];
    await Promise.all(back);
    await bar2(HIGH, 'both at once');
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a BAR whose size is read while decode is on is not mapped until it has an address again',
  async (t, { edu: [engineBdf = ''], ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const engine = await guest.engine(engineBdf);
    const peer = await guest.assign(bdf);
    const { device, firmware } = peer;
    const bar2 = look(t, guest, [engine], peer, [LOW]);
    await firmware.place(2, LOW);
    await firmware.enable();
    const without = mapped(guest.manager)[0] ?? NaN;
    for (const register of [2, 3]) await device.configWrite(barRegister(register), 4, 0xffff_ffff);
    t.is(device.configRead(barRegister(2), 4), 0xff00_000c);
    t.is(device.configRead(barRegister(3), 4), 0xffff_ffff);
    await bar2(NOWHERE, 'all ones');
    t.deepEqual(mapped(guest.manager), [without - 1]);
    await firmware.place(2, LOW);
    await bar2(LOW, 'placed again');
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  "a BAR moves over another device's BAR, which moves away",
  async (t, { edu: [first = '', second = ''], ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const engine = await guest.engine(first);
    const small = await guest.assign(second);
    const peer = await guest.assign(bdf);
    const hole = LOW + 0x80_0000n;
    await small.firmware.place(0, hole);
    await small.firmware.enable();
    await peer.firmware.place(2, HIGH);
    await peer.firmware.enable();
    await peer.firmware.place(2, LOW);
    await small.firmware.place(0, 0xa000_0000n);
    // The large BAR now has the address of the small one, and everything around it.
    for (const offset of [0n, 0x80_0000n, 0x90_0000n, 0xff_f000n])
      t.true(await arrives(engine, peer, LOW, offset), `0x${offset.toString(16)}`);
    t.is(small.device.mmioRead(0xa000_0000n, 4)[0], 0xed, 'devices reach the small one at its new address');
  },
);

/** Whether bytes that are sent to an offset of BAR 2 arrive there. */
async function arrives(engine: Engine, peer: Assigned, at: bigint, offset: bigint): Promise<boolean> {
  const bytes = Uint8Array.from({ length: 512 }, (_, index) => (index * 7 + Number(offset >> 16n)) & 0xff);
  await engine.send(bytes, at + offset);
  return Buffer.compare(peer.device.mmioRead(at + offset, bytes.length), bytes) === 0;
}
