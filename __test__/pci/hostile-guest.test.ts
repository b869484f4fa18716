/**
 * A guest that accesses its devices at random, several accesses at a time. It uses config space, ECAM and BARs.
 *
 * No access throws into the VMM, and closing the devices leaves nothing behind.
 */
import test from 'ava';
import fc from 'fast-check';
import { AssignedDevice, resetDevices } from '../../ts/index.ts';
import { SimulatedBus, SimulatedDevice } from '../../ts/testing.ts';
import { seedOf } from '../support/seed.ts';
import { MiB, Fixture, DEFAULTS } from './support/fixture.ts';

/** Addresses for BARs, which overlap each other, RAM, and the interrupt window. */
const PLACES = [0xe000_0000, 0xe001_0000, 0xe010_0000, 0xe011_0000, 0xe020_0000, 0xfee0_0000, 0x10_0000] as const;
/** Offsets of edu's registers, of the MSI-X table and the pending bits, and of the ends of BARs. */
const OFFSETS = [0, 0x20, 0x60, 0x80, 0x88, 0x90, 0x98, 0xff, 0x2000, 0x200c, 0x203f, 0x3000, 0x3007, 0xfffc] as const;
const REGISTERS = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30] as const;

type Access = (device: AssignedDevice, all: readonly AssignedDevice[]) => unknown;

const gpa = fc
  .tuple(fc.constantFrom(...PLACES), fc.constantFrom(...OFFSETS), fc.integer({ min: -3, max: 3 }))
  .map(([place, offset, by]) => BigInt(place + offset + by));
const length = fc.oneof(fc.constantFrom(1, 2, 4, 8), fc.integer({ min: 1, max: 64 }));
const bytes = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 64 }),
  length.chain((count) => fc.constantFrom(0, 0xff).map((byte) => new Uint8Array(count).fill(byte))),
);
const offset = fc.oneof(fc.integer({ min: 0, max: 255 }), fc.integer({ min: 0, max: 4095 }));
const value = fc.oneof(fc.constantFrom(...PLACES, 0xffff_ffff, 0, 1, 0x40), fc.integer({ min: 0, max: 0xffff_ffff }));

const access: fc.Arbitrary<Access> = fc.oneof(
  fc.tuple(fc.constantFrom(...REGISTERS), value).map(
    ([register, address]): Access =>
      (device) =>
        device.configWrite(register, 4, address),
  ),
  fc.constantFrom(0, 2, 6, 7, 0x406, 0xffff).map(
    (command): Access =>
      (device) =>
        device.configWrite(4, 2, command),
  ),
  fc.tuple(offset, fc.constantFrom(1, 2, 4), value).map(
    ([at, size, word]): Access =>
      (device) =>
        device.configWrite(at, size, word % 256 ** size),
  ),
  fc.tuple(offset, fc.constantFrom(1, 2, 4)).map(
    ([at, size]): Access =>
      (device) =>
        device.configRead(at, size),
  ),
  fc.tuple(offset, bytes).map(
    ([at, written]): Access =>
      (device) =>
        device.ecamWrite(at, written),
  ),
  fc.tuple(offset, length).map(
    ([at, count]): Access =>
      (device) =>
        device.ecamRead(at, count),
  ),
  fc.tuple(gpa, length).map(
    ([address, count]): Access =>
      (device) =>
        device.mmioRead(address, count),
  ),
  fc.tuple(gpa, bytes).map(
    ([address, written]): Access =>
      (device) =>
        device.mmioWrite(address, written),
  ),
  fc.constant<Access>((_, all) => resetDevices(all)),
);
const step = fc.record({ device: fc.integer({ min: 0, max: 2 }), access, awaited: fc.boolean() });

test('never throws for guest accesses, and releases everything on closing', async (t) => {
  const seed = seedOf(t);
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 150 }), async (steps) => {
      const ends: (() => void | Promise<void>)[] = [];
      const fixture = await Fixture.create({ teardown: (end) => void ends.push(end) });
      const bus = new SimulatedBus();
      const { iommu } = fixture;
      const devices = [
        fixture.simulated({ ...DEFAULTS, rom: { length: 0x800n } }),
        SimulatedDevice.edu({ bdf: '0000:00:10.0', iommu, bus, resettable: true }),
        new SimulatedDevice({
          bdf: '0000:00:11.0',
          iommu,
          bus,
          bars: [
            { index: 1, length: 0x100n },
            { index: 3, length: MiB },
            { index: 4, length: 64n, kind: 'io' },
          ],
          msi: { address64: false },
          advancedFeatures: true,
          powerManagement: { noSoftReset: true },
        }),
      ];
      const all: AssignedDevice[] = [];
      for (const device of devices) all.push(await fixture.assign(device));
      all[0]?.interrupts.onChange((vectors) => void vectors.map(({ message, enabled }) => [message, enabled]));
      all[1]?.interrupts.vector('intx').onInterrupt(() => {});
      try {
        const pending: Promise<unknown>[] = [];
        for (const { device, access: act, awaited } of steps) {
          const done = (async () => act(all[device] as AssignedDevice, all))();
          if (awaited) await done;
          else pending.push(done);
        }
        await Promise.all(pending);
        for (const device of all) await device.close();
        const held = fixture.memory
          .inspect()
          .targets.flatMap(({ mappings }) => mappings.filter(({ kind }) => kind === 'device'));
        if (held.length > 0) throw new Error(`left: ${JSON.stringify(held)}`);
      } finally {
        for (const end of ends.toReversed()) await end();
      }
    }),
    { seed, numRuns: 60 },
  );
  t.pass();
});
