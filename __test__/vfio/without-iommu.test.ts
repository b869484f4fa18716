/**
 * A machine without an IOMMU. VFIO makes groups nevertheless (`vfio.enable_unsafe_noiommu_mode`). Runs in a guest of
 * its own.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync, readlinkSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { diagnose, functionAt, peerMatrix, readHost } from '../../ts/host.ts';
import { GuestMemory, VfioContainerManager } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { testWith } from './support/devices.ts';
import { BOUND, assertRefused, runSuccessfully, state } from './support/drivers.ts';
import { findings } from './support/findings.ts';
import { openVfioFiles } from './support/open-files.ts';

/** The number of the group that VFIO made for a device. */
const groupOf = (bdf: string): number => Number(basename(readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`)));

testWith({ any: 1 }, 'no back end opens a device without an IOMMU', async (t, { any: [bdf = ''] }) => {
  await using memory = await GuestMemory.create({ ram: [{ start: 0n, length: 0x10_0000n }] });
  for (const backend of ['auto', 'type1', 'iommufd'] as const) {
    await using manager = new VfioContainerManager(memory, { backend });
    const { message } = await rejectsCode(t, manager.open(bdf), 'ERR_NO_IOMMU_GROUP');
    t.regex(message, /no IOMMU protects memory from it: turn on the IOMMU/, backend);
    t.deepEqual([manager.inspect().containers, memory.inspect().targets, openVfioFiles()], [[], [], []]);
  }
});

testWith(
  { any: 2 },
  'topology and doctor report groups without an IOMMU',
  async (t, { any: [bdf = '', other = ''] }) => {
    const host = readHost();
    t.is(host.groups.size, 0);
    t.deepEqual(host.findings, []);
    t.like(functionAt(host, bdf), { group: undefined, noIommuGroup: groupOf(bdf) });
    const [cell] = peerMatrix(host, [bdf, other]).cells;
    t.true(cell?.prerequisites.some(({ code }) => code === 'no-iommu'));

    const diagnosis = await diagnose({ devices: [bdf] });
    const [iommu] = findings(diagnosis, 'iommu');
    t.like(iommu, { state: 'blocked', code: 'ERR_NO_IOMMU_GROUP' });
    t.regex(iommu?.evidence ?? '', /only groups without an IOMMU \(vfio-noiommu\)/);
    const [group] = findings(diagnosis, 'group', bdf);
    t.like(group, { state: 'blocked', code: 'ERR_NO_IOMMU_GROUP' });
    t.regex(group?.evidence ?? '', new RegExp(`iommu_group: ${groupOf(bdf)}, whose name is vfio-noiommu`));
    t.deepEqual(findings(diagnosis, 'backend', bdf), []);
  },
);

testWith(
  { edu: 1 },
  'unbinds a device without an IOMMU unless a process has it open, and does not bind it',
  async (t, { edu: [bdf = ''] }) => {
    t.teardown(() => {
      writeFileSync(`/sys/bus/pci/devices/${bdf}/driver_override`, 'vfio-pci');
      writeFileSync('/sys/bus/pci/drivers_probe', bdf);
    });
    const fd = openSync(`/dev/vfio/noiommu-${groupOf(bdf)}`, 'r+');
    const child = spawn('sleep', ['1000'], { stdio: ['ignore', 'ignore', 'ignore', fd] });
    closeSync(fd);
    t.teardown(() => child.kill());
    await assertRefused(t, ['unbind', bdf], new RegExp(`ERR_DEVICE_IN_USE.*sleep \\(process ${child.pid}\\)`, 's'));
    t.deepEqual(state(bdf), BOUND);
    child.kill();
    await new Promise((resolve) => child.once('exit', resolve));
    await runSuccessfully(t, 'unbind', bdf);
    for (const options of [[], ['--force']]) await assertRefused(t, ['bind', ...options, bdf], /ERR_NO_IOMMU_GROUP/);
  },
);
