/**
 * Assigned devices that share an IOMMU group or a container, and those that do not.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { AssignedDevice, type ContainerSnapshot, GuestMemory } from '../../../ts/index.ts';
import { rejectsCode } from '../../support/errors.ts';
import { testWith } from '../support/devices.ts';
import { groupOf } from '../support/native-rig.ts';
import { openVfioFiles } from '../support/open-files.ts';
import { Guest, HIGH, HIGHER, holders } from './support/guest.ts';

/** The groups of a container with their devices, sorted by number. */
function tree(containers: readonly ContainerSnapshot[]): [group: number, devices: readonly string[]][][] {
  return containers.map(({ groups }) =>
    groups.map(({ id, devices }) => [id, devices] as [number, readonly string[]]).toSorted(([a], [b]) => a - b),
  );
}

/** The expected tree of one container. */
function expected(...devices: readonly string[]): [group: number, devices: readonly string[]][] {
  const groups = new Map<number, string[]>();
  for (const bdf of devices) groups.set(groupOf(bdf), [...(groups.get(groupOf(bdf)) ?? []), bdf]);
  return [...groups].toSorted(([a], [b]) => a - b);
}

testWith(
  { edu: 2, ivshmem: 2 },
  'assigned devices are in the containers in which they were opened, and reach each other across them',
  async (t, { edu: [first = '', second = ''], ivshmem: [one = '', two = ''] }) => {
    const guest = await Guest.start(t);
    const apart = guest.newManager();
    const near = await guest.engine(first);
    const peer = await guest.assign(one);
    const far = await guest.engine(second, { manager: apart });
    const other = await guest.assign(two, { manager: apart });
    t.deepEqual(tree(guest.manager.inspect().containers), [expected(first, one)]);
    t.deepEqual(tree(apart.inspect().containers), [expected(second, two)]);
    for (const [{ firmware }, place] of [
      [peer, HIGH],
      [other, HIGHER],
    ] as const) {
      await firmware.place(2, place);
      await firmware.enable();
    }
    for (const engine of [near, far]) {
      t.true(await engine.reaches(peer, HIGH));
      t.true(await engine.reaches(other, HIGHER));
    }
    await far.assigned.device.close();
    t.deepEqual(tree(apart.inspect().containers), [expected(two)]);
    await other.device.close();
    t.deepEqual([apart.inspect().containers, holders(guest.memory, HIGHER)], [[], []]);
    t.true(await near.reaches(peer, HIGH));
  },
);

testWith(
  { ivshmem: 1 },
  'a device can be assigned only in the guest memory that its IOMMU has joined',
  async (t, { ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const physical = await guest.manager.open(bdf);
    await using other = await GuestMemory.create();
    const error = await rejectsCode(
      t,
      AssignedDevice.create({ device: physical, memory: other }),
      'ERR_INVALID_ARGUMENT',
    );
    t.is(error.bdf, bdf);
    t.is((await guest.hand(physical)).bdf, bdf, 'the device is as before');
  },
);

/** An edu of the testbed in a group with a device that the guest's kernel drives. */
const entangled = process.env['PEERDMA_TESTBED_ENTANGLED'];
const sharing = 'two devices of one group are assigned together, and the group closes with the last of them';
if (entangled === undefined) {
  test.serial.skip(`${sharing} (needs PEERDMA_TESTBED_ENTANGLED; npm test runs it in the testbed)`, () => {});
} else {
  testWith({ ivshmem: 1 }, sharing, async (t, { ivshmem: [bdf = ''] }) => {
    const sibling = bindSibling(t, entangled); // first, so that it is restored last
    const guest = await Guest.start(t);
    const engine = await guest.engine(entangled);
    const mate = await guest.assign(sibling);
    const peer = await guest.assign(bdf, { manager: guest.newManager() });
    t.deepEqual(tree(guest.manager.inspect().containers), [expected(entangled, sibling)]);
    t.is(guest.manager.inspect().containers[0]?.groups.length, 1, 'one group');
    await peer.firmware.place(2, HIGH);
    await peer.firmware.enable();
    t.true(await engine.reaches(peer, HIGH));

    // The BARs of the other device are mapped and unmapped in the container of both.
    const [large] = mate.firmware.bars.toSorted((a, b) => Number(b.length - a.length));
    if (large === undefined) throw new Error(`${sibling} has no BAR`);
    await mate.firmware.place(large.index, HIGHER);
    await mate.firmware.enable();
    const shown = mate.device.status().find(({ bar }) => bar === large.index)?.mapped ?? [];
    t.true(shown.length > 0);
    for (const { start } of shown) t.is(holders(guest.memory, start).length, 2);
    await mate.device.close();
    for (const { start } of shown) t.deepEqual(holders(guest.memory, start), []);
    t.deepEqual(tree(guest.manager.inspect().containers), [expected(entangled)], 'the group stays for the other');
    t.true(await engine.reaches(peer, HIGH));

    const again = await guest.assign(sibling);
    t.deepEqual(tree(guest.manager.inspect().containers), [expected(entangled, sibling)]);
    await engine.assigned.device.close();
    t.deepEqual(tree(guest.manager.inspect().containers), [expected(sibling)]);
    await again.device.close();
    t.deepEqual(guest.manager.inspect().containers, []);
    t.is(openVfioFiles().filter((path) => path.endsWith(`/${groupOf(sibling)}`)).length, 0, 'the group is closed');
  });
}

/** Binds the other device of a group to vfio-pci until the test ends. */
function bindSibling(t: ExecutionContext, bdf: string): string {
  const functions = readdirSync(`/sys/bus/pci/devices/${bdf}/iommu_group/devices`);
  const sibling = functions.find((other) => other !== bdf && !classOf(other).startsWith('0x06'));
  if (sibling === undefined) throw new Error(`${bdf} is alone in its group`);
  const bind = (driver: string): void => {
    writeFileSync(`/sys/bus/pci/devices/${sibling}/driver/unbind`, sibling);
    writeFileSync(`/sys/bus/pci/devices/${sibling}/driver_override`, driver);
    writeFileSync('/sys/bus/pci/drivers_probe', sibling);
  };
  bind('vfio-pci');
  t.teardown(() => bind('\n'));
  return sibling;
}

/** `0x06…` for bridges. */
function classOf(bdf: string): string {
  return readFileSync(`/sys/bus/pci/devices/${bdf}/class`, 'utf8');
}
