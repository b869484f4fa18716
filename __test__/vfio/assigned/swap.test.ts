/**
 * BARs of two devices swap addresses, observed from two containers.
 */
import type { ExecutionContext } from 'ava';
import { barRegister } from '../../../examples/guest/firmware.ts';
import { type Devices, testWith } from '../support/devices.ts';
import type { Engine } from './support/engine.ts';
import { type Assigned, Guest, HIGH, HIGHER, holders, mapped } from './support/guest.ts';

interface Scene {
  readonly guest: Guest;
  readonly engines: readonly Engine[];
  readonly one: Assigned;
  readonly two: Assigned;
  /** The devices in whose BAR 2 the bytes arrive that each engine sends to an address. */
  owners(gpa: bigint): Promise<string[][]>;
  /** Checks that all engines reach the devices at these addresses and at no other. */
  stand(oneAt: bigint, twoAt: bigint): Promise<void>;
}

/** The first at HIGH, the second at HIGHER, both with decode on. */
async function scene(t: ExecutionContext, { edu, ivshmem }: Devices): Promise<Scene> {
  const guest = await Guest.start(t);
  const other = guest.newManager();
  const engines = [await guest.engine(edu[0] ?? ''), await guest.engine(edu[1] ?? '', { manager: other })];
  const one = await guest.assign(ivshmem[0] ?? '');
  const two = await guest.assign(ivshmem[1] ?? '', { manager: other });
  for (const [peer, place] of [
    [one, HIGH],
    [two, HIGHER],
  ] as const) {
    await peer.firmware.place(2, place);
    await peer.firmware.enable();
  }
  const watched = [one, two].map((peer) => ({ peer, bar: 2 }));
  const owners = async (gpa: bigint): Promise<string[][]> => {
    const found: string[][] = [];
    // One after the other: each check turns the decode of the devices on and off.
    for (const engine of engines) found.push(await engine.receiversAmong(watched, gpa));
    return found;
  };
  const counts = mapped(guest.manager, other);
  const stand = async (oneAt: bigint, twoAt: bigint): Promise<void> => {
    t.deepEqual(
      await owners(oneAt),
      engines.map(() => [one.bdf]),
    );
    t.deepEqual(
      await owners(twoAt),
      engines.map(() => [two.bdf]),
    );
    t.deepEqual(mapped(guest.manager, other), counts, "as many mappings as before, by the kernel's count");
  };
  await stand(HIGH, HIGHER);
  return { guest, engines, one, two, owners, stand };
}

testWith({ edu: 2, ivshmem: 2 }, 'two BARs swap their addresses while decode is off', async (t, devices) => {
  const { guest, one, two, stand } = await scene(t, devices);
  await one.firmware.disable();
  await two.firmware.disable();
  t.deepEqual([holders(guest.memory, HIGH), holders(guest.memory, HIGHER)], [[], []]);
  await one.firmware.place(2, HIGHER);
  await two.firmware.place(2, HIGH);
  await one.firmware.enable();
  await two.firmware.enable();
  await stand(HIGHER, HIGH);
});

testWith(
  { edu: 2, ivshmem: 2 },
  'two BARs swap their addresses while decode is on, one over the other',
  async (t, devices) => {
    const { one, two, owners, stand } = await scene(t, devices);
    await one.firmware.place(2, HIGHER);
    t.deepEqual(await owners(HIGH), [[], []], 'the old address');
    for (const found of await owners(HIGHER))
      t.is(found.length, 1, 'one of the two has the address, the other is hidden');
    const hidden = [one, two].flatMap(({ bdf, device }) =>
      device.status().flatMap(({ hidden: parts }) => parts.map(({ range, by }) => ({ bdf, start: range.start, by }))),
    );
    t.is(hidden.length, 1, 'whose status reports it');
    t.is(hidden[0]?.start, HIGHER);
    await two.firmware.place(2, HIGH);
    await stand(HIGHER, HIGH);
  },
);

testWith(
  { edu: 2, ivshmem: 2 },
  'two BARs swap their addresses register by register, in calls that are not awaited',
  async (t, devices) => {
    const { one, two, stand } = await scene(t, devices);
    const halves = (gpa: bigint): [number, number] => [Number(gpa & 0xffff_ffffn), Number(gpa >> 32n)];
    const writes: Promise<void>[] = [];
    for (const half of [0, 1] as const) {
      writes.push(one.device.configWrite(barRegister(2 + half), 4, halves(HIGHER)[half]));
      writes.push(two.device.configWrite(barRegister(2 + half), 4, halves(HIGH)[half]));
    }
    await Promise.all(writes);
    await stand(HIGHER, HIGH);
  },
);
