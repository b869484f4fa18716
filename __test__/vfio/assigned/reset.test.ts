/**
 * Resets of real devices whose BARs are mapped in IOMMUs of others.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ExecutionContext } from 'ava';
import { PeerDmaError, resetDevices } from '../../../ts/index.ts';
import { GuestBar } from '../../../examples/guest/bar.ts';
import { barRegister } from '../../../examples/guest/firmware.ts';
import { rejectsCode } from '../../support/errors.ts';
import { testWith } from '../support/devices.ts';
import { SINK, SOURCE } from '../support/rig.ts';
import type { Engine } from './support/engine.ts';
import { type Assigned, Guest, HIGH, HIGHER, LOW, decoding, holders, ones, physicalBar } from './support/guest.ts';

const PCI_EXPRESS = 0x10;
const CAN_BE_RESET = 1 << 28;
const RESET_FUNCTION = 1 << 15;

/** Registers of the nvme (NVM Express Base Specification, 3.1.4). */
const CONFIGURATION = 0x14n;
const STATUS = 0x1cn;
const QUEUE_ATTRIBUTES = 0x24n;
const SUBMISSION_QUEUE = 0x28n;
const COMPLETION_QUEUE = 0x30n;

/** The state just before the hardware of a device is reset, for all resets in order. */
function witnessed(guest: Guest, { physical }: Assigned, gpa: bigint): { heldBy: string[]; decoding: boolean }[] {
  const resets: { heldBy: string[]; decoding: boolean }[] = [];
  const reset = physical.reset.bind(physical);
  physical.reset = () => {
    const command = physical.config.read(4n, 2)[0] ?? 0;
    resets.push({ heldBy: holders(guest.memory, gpa), decoding: (command & 2) !== 0 });
    return reset();
  };
  return resets;
}

/** The state after power-on. */
function isOff(t: ExecutionContext, { bdf, device, firmware }: Assigned): void {
  for (const { index } of firmware.bars) t.is(firmware.addressOf(index), 0n, `BAR ${index} of ${bdf}`);
  t.is(device.configRead(4, 2) & 7, 0, `Command of ${bdf}`);
  t.true(device.status().every(({ range, mapped }) => range === undefined && mapped.length === 0));
}

/** A device is not reachable in its BAR 2 at one address and, placed again, reachable at another. */
async function assertReachableAgain(
  t: ExecutionContext,
  engine: Engine,
  peer: Assigned,
  from: bigint,
  to: bigint,
): Promise<void> {
  t.false(await engine.reaches(peer, from), `${peer.bdf} at its old address`);
  await peer.firmware.place(2, to);
  await peer.firmware.enable();
  t.true(await engine.reaches(peer, to), `${peer.bdf} at its new address`);
}

testWith(
  { edu: 1, nvme: 1, ivshmem: 2 },
  'a reset unmaps the BARs from every IOMMU first, and leaves the device as after power-on',
  async (t, { edu: [engineBdf = ''], nvme, ivshmem }) => {
    const guest = await Guest.start(t);
    const engine = await guest.engine(engineBdf, { manager: guest.newManager() });
    for (const bdf of [nvme[0] ?? '', ivshmem[1] ?? '']) {
      const peer = await guest.assign(bdf);
      const resets = witnessed(guest, peer, HIGH);
      await peer.firmware.place(2, HIGH);
      await peer.firmware.enable();
      t.true(await engine.reaches(peer, HIGH));
      t.is(holders(guest.memory, HIGH).length, 2, 'in its own container and the other');
      await peer.device.reset();
      t.deepEqual(resets, [{ heldBy: [], decoding: false }], bdf);
      isOff(t, peer);
      await assertReachableAgain(t, engine, peer, HIGH, HIGHER);
      await peer.device.close();
    }
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'a device whose hardware cannot be reset reports that, and stops all the same',
  async (t, { edu: [first = '', second = ''], ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const engine = await guest.engine(first);
    const other = await guest.engine(second);
    const peer = await guest.assign(bdf);
    await peer.firmware.place(2, HIGH);
    await peer.firmware.enable();
    for (const { assigned } of [{ assigned: peer }, other]) {
      const error = await rejectsCode(t, assigned.device.reset(), 'ERR_RESET_UNSUPPORTED');
      t.is(error.bdf, assigned.bdf);
      isOff(t, assigned);
    }
    t.deepEqual(other.assigned.device.mmioRead(other.registers, 4), ones(4));

    // It does no DMA either: commanded directly, past the guest, it writes nothing.
    const before = guest.memory.read(SINK, 2048);
    const registers = physicalBar(other.assigned, 0);
    await decoding(other.assigned, async () => {
      registers.write64(0x80n, 0x40000n);
      registers.write64(0x88n, SINK);
      registers.write64(0x90n, 2048n);
      registers.write64(0x98n, 3n);
      while ((registers.read64(0x98n) & 1n) !== 0n) await sleep(10);
    });
    t.deepEqual(guest.memory.read(SINK, 2048), before);
    await assertReachableAgain(t, engine, peer, HIGH, LOW);
    await other.assigned.firmware.place(0, other.registers);
    await other.assigned.firmware.enable();
    t.true(await other.reaches(peer, LOW), 'enabled again it works');
  },
);

testWith(
  { edu: 1, nvme: 1, ivshmem: 2 },
  'a reset of the VM resets the devices that can be reset, names the others, and stops all',
  async (t, { edu: [engineBdf = ''], nvme: [nvme = ''], ivshmem: [stubborn = '', ivshmem = ''] }) => {
    const guest = await Guest.start(t);
    const engine = await guest.engine(engineBdf, { manager: guest.newManager() });
    const places = [HIGH, HIGH + 0x100_0000n, HIGH + 0x200_0000n] as const;
    const peers: Assigned[] = [];
    const resets = [];
    for (const [index, bdf] of [nvme, ivshmem, stubborn].entries()) {
      const peer = await guest.assign(bdf);
      peers.push(peer);
      const place = places[index] ?? 0n;
      resets.push(witnessed(guest, peer, place));
      await peer.firmware.place(2, place);
      await peer.firmware.enable();
      t.true(await engine.reaches(peer, place));
    }
    const [controller, behindPort] = peers as [Assigned, Assigned];
    await resetDevices([controller.device, behindPort.device]);
    for (const seen of resets.slice(0, 2)) t.deepEqual(seen, [{ heldBy: [], decoding: false }]);
    t.is(holders(guest.memory, places[2]).length, 2, 'the third was not among them');
    isOff(t, controller);
    isOff(t, behindPort);

    const error = await t.throwsAsync(resetDevices(peers.map(({ device }) => device)), {
      instanceOf: PeerDmaError,
      code: 'ERR_RESET_UNSUPPORTED',
    });
    t.true(error?.message.includes(stubborn), error?.message);
    t.false(error?.message.includes(nvme), error?.message);
    t.is(resets[0]?.length, 2, 'the others were reset anyway');
    for (const [index, peer] of peers.entries()) {
      isOff(t, peer);
      await assertReachableAgain(t, engine, peer, places[index] ?? 0n, HIGHER + BigInt(index) * 0x100_0000n);
    }
  },
);

testWith(
  { edu: 1, nvme: 1 },
  'a function-level reset by the guest unmaps the BARs and maps them again',
  async (t, { edu: [engineBdf = ''], nvme: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const engine = await guest.engine(engineBdf, { manager: guest.newManager() });
    const peer = await guest.assign(bdf);
    const { device, firmware } = peer;
    await firmware.place(0, LOW);
    await firmware.place(2, HIGH);
    await firmware.enable();
    const express = firmware.capability(PCI_EXPRESS);
    t.not(device.configRead(express + 4, 4) & CAN_BE_RESET, 0, 'the nvme has function-level reset');
    const registers = new GuestBar(device, LOW);
    registers.write32(QUEUE_ATTRIBUTES, 0x7_0007);
    registers.write64(SUBMISSION_QUEUE, SOURCE);
    registers.write64(COMPLETION_QUEUE, SINK);
    registers.write32(CONFIGURATION, 1);
    t.is(registers.read32(STATUS), 1, 'the controller is ready');
    t.true(await engine.reaches(peer, HIGH));

    const seen: string[][] = [];
    const { config } = peer.physical;
    const write = config.writeAsync.bind(config);
    config.writeAsync = (offset, bytes) => {
      if (offset === BigInt(express + 8)) seen.push(holders(guest.memory, HIGH));
      return write(offset, bytes);
    };
    await device.configWrite(express + 8, 2, device.configRead(express + 8, 2) | RESET_FUNCTION);
    t.deepEqual(seen, [[]], 'its BARs were unmapped before the device was reset');
    t.is(registers.read32(STATUS), 0, 'the controller has been reset');
    t.deepEqual([firmware.addressOf(0), firmware.addressOf(2)], [LOW, HIGH], 'its config space is as before');
    t.is(device.configRead(barRegister(2), 4) & 0xf, 0xc);
    t.is(holders(guest.memory, HIGH).length, 2);
    t.true(await engine.reaches(peer, HIGH));
  },
);
