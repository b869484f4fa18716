/**
 * The doctor about real devices that cannot be opened: in use, of the host, or in its group.
 */
import { readdirSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import test from 'ava';
import { GuestMemory, VfioContainerManager } from '../../ts/index.ts';
import { diagnose } from '../../ts/host.ts';
import { rejectsCode } from '../support/errors.ts';
import { testWith } from './support/devices.ts';
import { blockedCodes, findings } from './support/findings.ts';
import { rig } from './support/rig.ts';

testWith({ any: 1 }, 'a device that a process has open is blocked', async (t, { any: [bdf = ''] }) => {
  const { open } = await rig(t);
  t.deepEqual(blockedCodes(await diagnose({ devices: [bdf] })), []);
  const device = await open(bdf);
  const diagnosis = await diagnose({ devices: [bdf] });
  t.deepEqual(blockedCodes(diagnosis), ['ERR_GROUP_BUSY']);
  const [free] = findings(diagnosis, 'free', bdf);
  t.regex(free?.text ?? '', new RegExp(`\\(process ${process.pid}\\) has it`));
  t.deepEqual(findings(diagnosis, 'backend', bdf), [], 'back ends are not checked');
  await using memory = await GuestMemory.create();
  await using other = new VfioContainerManager(memory);
  await rejectsCode(t, other.open(bdf), 'ERR_GROUP_BUSY');
  await device.close();
  t.deepEqual(blockedCodes(await diagnose({ devices: [bdf] })), []);
});

testWith({ any: 1 }, 'a device of the host is blocked if it is named, and otherwise a warning', async (t) => {
  const foreign = readdirSync('/sys/bus/pci/devices').find((bdf) => driverOf(bdf) === 'virtio-pci') ?? '';
  const asked = await diagnose({ devices: [foreign] });
  t.true(blockedCodes(asked).includes('ERR_DEVICE_NOT_BOUND'));
  const [driver] = findings(asked, 'driver', foreign);
  // The guest's files are on a virtio device. The doctor suggests no command that bind would refuse.
  const needed = /in use by this machine\b.*: it/.test(driver?.text ?? '');
  t.is(driver?.fix, needed ? undefined : `sudo npx peerdma bind ${foreign}`);
  const { open } = await rig(t);
  await rejectsCode(t, open(foreign), 'ERR_DEVICE_NOT_BOUND');
  const all = await diagnose();
  t.is(findings(all, 'driver', foreign)[0]?.state, 'warning');
});

const entangled = process.env['PEERDMA_TESTBED_ENTANGLED'];
const sharing = 'a device that its group blocks is rejected, and opens once the group is free';
if (entangled === undefined) {
  test.serial.skip(`${sharing} (needs PEERDMA_TESTBED_ENTANGLED; npm test runs it in the testbed)`, () => {});
} else {
  test.serial(sharing, async (t) => {
    const before = await diagnose({ devices: [entangled] });
    t.deepEqual(blockedCodes(before), ['ERR_GROUP_NOT_VIABLE']);
    const [viable] = findings(before, 'group-viable', entangled);
    t.is(viable?.fix, `sudo npx peerdma bind --group ${entangled}`);
    const { manager, open } = await rig(t);
    const error = await rejectsCode(t, open(entangled), 'ERR_GROUP_NOT_VIABLE');
    t.is(viable?.text, error.message, 'the error has the same text');

    const [, other = ''] = /: (\S+) \(driver virtio-pci\)\./.exec(error.message) ?? [];
    writeFileSync(`/sys/bus/pci/devices/${other}/driver/unbind`, other);
    t.teardown(async () => {
      await manager.close(); // while VFIO has the group, no other driver can bind a device of it
      writeFileSync('/sys/bus/pci/drivers_probe', other);
    });
    t.deepEqual(blockedCodes(await diagnose({ devices: [entangled] })), []);
    await open(entangled);
  });
}

function driverOf(bdf: string): string | undefined {
  try {
    return basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/driver`));
  } catch {
    return undefined;
  }
}
