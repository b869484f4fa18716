/**
 * BARs at fixed guest addresses, and the host virtual addresses of BARs.
 */
import { readFileSync } from 'node:fs';
import { barRegister } from '../../../examples/guest/firmware.ts';
import { rejectsCode } from '../../support/errors.ts';
import { testWith } from '../support/devices.ts';
import { RAM_START } from '../support/rig.ts';
import { Guest, HIGH, HIGHER, LOW, physicalBar } from './support/guest.ts';
import { hostBars } from './support/resource-file.ts';
import { BACKEND } from '../support/backend.ts';

const GIB = 1n << 30n;

for (const where of ['host', HIGHER] as const) {
  const title = where === 'host' ? 'at its host address' : 'to an address';
  testWith(
    { edu: 1, ivshmem: 1 },
    `a BAR that is pinned ${title} stays there, and devices reach it while decode is on`,
    async (t, { edu: [engineBdf = ''], ivshmem: [bdf = ''] }) => {
      const guest = await Guest.start(t);
      const engine = await guest.engine(engineBdf);
      const { device, firmware, ...rest } = await guest.assign(bdf, { bars: { 2: where } });
      const peer = { device, firmware, ...rest };
      const place = where === 'host' ? hostBars(bdf).find(({ index }) => index === 2)?.address : where;
      if (place === undefined) throw new Error(`${bdf} has no BAR 2`);
      t.is(firmware.addressOf(2), place);
      t.is(firmware.bars.find(({ index }) => index === 2)?.length, 16n << 20n, 'firmware reads its size');
      t.false(await engine.reaches(peer, place), 'off');
      await firmware.enable();
      t.true(await engine.reaches(peer, place), 'on');
      t.true(device.status().find(({ bar }) => bar === 2)?.pinned);
      await firmware.place(2, HIGH);
      t.is(firmware.addressOf(2), place, 'it does not move');
      for (const register of [2, 3]) await device.configWrite(barRegister(register), 4, 0xffff_ffff);
      t.is(device.configRead(barRegister(2), 4), 0xff00_000c, 'its size can be read');
      t.true(await engine.reaches(peer, place), 'it is at the same address meanwhile');
      t.false(await engine.reaches(peer, HIGH));
      await firmware.disable();
      t.false(await engine.reaches(peer, place), 'off again');
    },
  );
}

testWith(
  { ivshmem: 1 },
  'a BAR that cannot be at its pinned address is rejected, and the device can be opened',
  async (t, { ivshmem: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const physical = await guest.manager.open(bdf);
    await rejectsCode(t, guest.hand(physical, { bars: { 2: RAM_START } }), 'ERR_OVERLAP');
    await rejectsCode(t, guest.hand(physical, { bars: { 2: HIGH + 0x1000n } }), 'ERR_UNALIGNED');
    await rejectsCode(t, guest.hand(physical, { bars: { 4: HIGH } }), 'ERR_INVALID_ARGUMENT');
    const { firmware } = await guest.hand(physical, { bars: { 2: HIGH } });
    t.is(firmware.addressOf(2), HIGH);
  },
);

// iommufd takes a BAR as a dma-buf, which is not mapped in this process (iommufd/files.test.ts).
if (BACKEND === 'type1') {
  testWith(
    { edu: 1, ivshmem: 1 },
    'host-virtual, guest and physical address of a BAR agree in their lower bits',
    async (t, { edu: [engineBdf = ''], ivshmem: [bdf = ''] }) => {
      const guest = await Guest.start(t);
      await guest.engine(engineBdf);
      const peer = await guest.assign(bdf);
      const host = hostBars(bdf).find(({ index }) => index === 2);
      if (host === undefined) throw new Error(`${bdf} has no BAR 2`);
      t.is(physicalBar(peer, 2).hostAddress, host.address);
      await peer.firmware.enable();
      for (const place of [LOW, LOW + 0x300_0000n, HIGHER + 0x700_0000n]) {
        await peer.firmware.place(2, place);
        const at = mappedAt(host.length);
        t.is(at.length, 1, 'in one piece');
        t.is(
          (at[0] ?? 0n) % host.length,
          host.address % host.length,
          'so that the kernel can map it by large page table entries',
        );
        t.is((at[0] ?? 0n) % GIB, place % GIB);
      }
      await peer.firmware.disable();
      t.deepEqual(mappedAt(host.length), []);
    },
  );
}

/** Host virtual addresses at which this process has so many bytes of a VFIO device in one piece. */
function mappedAt(length: bigint): bigint[] {
  return readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .flatMap((line) => {
      const [, start, end] = /^(\w+)-(\w+) .*vfio-device/.exec(line) ?? [];
      return start !== undefined && BigInt(`0x${end}`) - BigInt(`0x${start}`) === length ? [BigInt(`0x${start}`)] : [];
    });
}
