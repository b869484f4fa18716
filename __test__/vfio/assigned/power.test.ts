/**
 * A device in a low-power state does not decode memory, and decodes it again in D0.
 */
import { testWith } from '../support/devices.ts';
import { Guest, HIGH, LOW, holders, mapped, ones } from './support/guest.ts';
import { throwsCode } from '../../support/errors.ts';

/** The controller's memory buffer. */
const BUFFER = 2;
const BYTES = 2048;

testWith(
  { edu: 1, nvme: 1 },
  'devices do not reach a device in D3hot, and reach it at once when it wakes up',
  async (t, { edu: [engineBdf = ''], nvme: [bdf = ''] }) => {
    const guest = await Guest.start(t);
    const engine = await guest.engine(engineBdf);
    const none = mapped(guest.manager);
    const peer = await guest.assign(bdf);
    const { device, firmware } = peer;
    await firmware.place(BUFFER, HIGH);
    await firmware.place(0, LOW);
    await firmware.enable();
    t.true(await engine.reaches(peer, HIGH, BUFFER));
    const all = mapped(guest.manager);
    const version = device.mmioRead(LOW + 8n, 4);

    for (let round = 0; round < 3; round++) {
      device.mmioWrite(engine.target(HIGH), new Uint8Array(BYTES));
      await firmware.setPowerState(3);
      t.deepEqual([holders(guest.memory, HIGH), mapped(guest.manager)], [[], none], 'no IOMMU has any of its BARs');
      t.true(device.status().every(({ range }) => range === undefined));
      t.deepEqual(device.mmioRead(HIGH, 4), ones(4));
      throwsCode(t, () => guest.memory.read(HIGH, 4), 'ERR_NOT_MAPPED');
      await engine.strike(HIGH);
      t.is(device.configRead(4, 2) & 2, 2, 'Command is as before');

      await firmware.setPowerState(0);
      t.deepEqual(mapped(guest.manager), all, 'all of it is mapped again');
      t.deepEqual(
        device.mmioRead(engine.target(HIGH), BYTES),
        new Uint8Array(BYTES),
        'the bytes sent meanwhile are lost',
      );
      t.true(await engine.reaches(peer, HIGH, BUFFER), 'others arrive');
      t.deepEqual(device.mmioRead(LOW + 8n, 4), version);
    }

    // In D3hot, the guest may write its registers.
    await firmware.setPowerState(3);
    await firmware.disable();
    await firmware.setPowerState(0);
    t.deepEqual(mapped(guest.manager), none, 'awake, with decode off');
    t.false(await engine.reaches(peer, HIGH, BUFFER));
    await firmware.enable();
    await firmware.setPowerState(3);
    await firmware.place(BUFFER, LOW + 0x40_0000n);
    await firmware.setPowerState(0);
    t.false(await engine.reaches(peer, HIGH, BUFFER));
    t.true(await engine.reaches(peer, LOW + 0x40_0000n, BUFFER), 'the address that was written in D3hot');
  },
);
