/**
 * The policy of assigned devices on real IOMMUs: domains, options of BARs, chosen address spaces.
 */
import { rejectsCode } from '../../support/errors.ts';
import { testWith } from '../support/devices.ts';
import { SINK, pattern } from '../support/rig.ts';
import { Guest, HIGH, HIGHER, holders } from './support/guest.ts';

testWith(
  { edu: 2, ivshmem: 2 },
  'a device reaches the BARs of its peer-to-peer domains, and no byte arrives in others',
  async (t, { edu: [first = '', second = ''], ivshmem: [one = '', two = ''] }) => {
    const guest = await Guest.start(t);
    const a = await guest.engine(first, { opening: { peerToPeerDomains: ['a'] } });
    const b = await guest.engine(second, { opening: { peerToPeerDomains: ['b'] } });
    const inA = await guest.assign(one, { peerToPeerDomain: 'a', opening: { peerToPeerDomains: ['a'] } });
    const inB = await guest.assign(two, { peerToPeerDomain: 'b', opening: { peerToPeerDomains: ['b'] } });
    const containers = guest.manager.inspect().containers;
    t.deepEqual(
      containers.map(({ groups, peerToPeerDomains }) => [groups.flatMap(({ devices }) => devices), peerToPeerDomains]),
      [
        [[first, one], ['a']],
        [[second, two], ['b']],
      ],
    );
    for (const round of [HIGH, HIGHER]) {
      const other = round === HIGH ? HIGHER : HIGH;
      for (const [{ firmware }, place] of [
        [inA, round],
        [inB, other],
      ] as const) {
        await firmware.disable();
        await firmware.place(2, place);
      }
      for (const { firmware } of [inA, inB]) await firmware.enable();
      t.deepEqual([await a.reaches(inA, round), await a.reaches(inB, other)], [true, false]);
      t.deepEqual([await b.reaches(inA, round), await b.reaches(inB, other)], [false, true]);
      t.deepEqual(holders(guest.memory, round), [containers[0]?.name]);
      t.deepEqual(holders(guest.memory, other), [containers[1]?.name]);
    }
    const [unreachable] = inA.device.status().flatMap((bar) => bar.unreachable);
    t.like(unreachable, { target: containers[1]?.name, state: 'skipped' });
    t.regex(unreachable?.reason ?? '', /domain "a", and it maps "b"/);
    for (const engine of [a, b]) {
      await engine.send(pattern(1), SINK);
      t.deepEqual(guest.memory.read(SINK, 2048), pattern(1), 'RAM is mapped in every domain');
    }
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a BAR with mmap: false takes DMA, and one with peerToPeer: false does not',
  async (t, { edu: [edu = ''], ivshmem: [bdf = ''] }) => {
    for (const [bars, isReached] of [
      [{ 2: { mmap: false } }, true],
      [{ 2: { peerToPeer: false } }, false],
      [{ 2: { mmap: false, peerToPeer: false } }, false],
    ] as const) {
      const guest = await Guest.start(t);
      const engine = await guest.engine(edu);
      const peer = await guest.assign(bdf, { bars });
      await peer.firmware.place(2, HIGH);
      await peer.firmware.enable();
      t.is(await engine.reaches(peer, HIGH), isReached, JSON.stringify(bars));
      t.is(holders(guest.memory, HIGH).length, isReached ? 1 : 0);
      peer.device.mmioWrite(HIGH + 0x80n, Uint8Array.of(1, 2, 3, 4));
      t.deepEqual(peer.device.mmioRead(HIGH + 0x80n, 4), Uint8Array.of(1, 2, 3, 4));
      await peer.firmware.disable();
      await peer.firmware.place(2, HIGHER);
      await peer.firmware.enable();
      t.is(await engine.reaches(peer, HIGHER), isReached);
      t.false(await engine.reaches(peer, HIGH));
      await guest.close();
    }
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'devices share the address space that the caller names, each with all of guest memory',
  async (t, { edu: [first = '', second = ''], ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const { manager, memory } = guest;
    const near = await guest.engine(first, { opening: { addressSpace: 'near' } });
    const far = await guest.engine(second);
    const peer = await guest.assign(bdf, { opening: { addressSpace: 'near' } });
    t.deepEqual(
      manager
        .inspect()
        .containers.map(({ addressSpace, groups }) => [addressSpace, groups.flatMap(({ devices }) => devices)]),
      [
        ['near', [first, bdf]],
        [undefined, [second]],
      ],
    );
    t.is(memory.inspect().targets.length, 2);
    await peer.firmware.place(2, HIGH);
    await peer.firmware.enable();
    for (const engine of [near, far]) t.true(await engine.reaches(peer, HIGH));
    const other = manager.open(bdf, { addressSpace: 'other' });
    await rejectsCode(t, other, 'ERR_DEVICE_IN_USE');
    await near.assigned.device.close();
    t.true(await far.reaches(peer, HIGH), 'the named address space stays with its other device');
    await peer.device.close();
    t.is(manager.inspect().containers.length, 1);
    const again = await guest.engine(first, { opening: { addressSpace: 'near' } });
    await again.send(pattern(2), SINK);
    t.deepEqual(memory.read(SINK, 2048), pattern(2));
  },
);
