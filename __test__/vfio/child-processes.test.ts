/**
 * Child processes of a VMM whose memory is pinned: they get none of it. Before guest memory was kept out of them, fork
 * copied every pinned page.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { AddressRange, GuestMemory } from '../../ts/index.ts';
import { newManager } from './support/backend.ts';
import { testWith } from './support/devices.ts';
import { pinnedAtRest, pinnedPages } from './support/pins.ts';
import { peerBar } from './support/rig.ts';

const RAM = 192 << 20;
const BAR = 0x4000_0000n;

/** The mappings of devices in this process: how many there are, and those that a child process gets. */
function deviceMappings(): { count: number; copied: string[] } {
  const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const devices = mappings.filter((mapping) => /^.*(vfio-device|\/dev\/vfio\/)/.test(mapping));
  return { count: devices.length, copied: devices.filter((mapping) => !/^VmFlags:.* dc( |$)/m.test(mapping)) };
}

testWith(
  { edu: 1, ivshmem: 1 },
  'starts a child process without pinned memory and without BARs',
  async (t, { edu: [edu = ''], ivshmem: [ivshmem = ''] }) => {
    const memory = await GuestMemory.create({ ram: [{ start: 0n, length: BigInt(RAM), private: true }] });
    const manager = newManager(memory);
    t.teardown(async () => {
      await manager.close();
      await memory.close();
    });
    const before = await pinnedAtRest();
    await manager.open(edu);
    const bar = peerBar(await manager.open(ivshmem));
    const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
    await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
    await window.mapToGuest(BAR);
    bar.write32(0n, 7);
    t.true(pinnedPages() - before >= RAM / 4096, 'RAM is pinned');
    const { count, copied } = deviceMappings();
    t.true(count > 0, 'a BAR is mapped');
    t.deepEqual(copied, []);

    const resident = process.memoryUsage.rss();
    const start = performance.now();
    t.is(spawnSync('/bin/true').status, 0);
    t.log(`a child process beside ${RAM >> 20} MiB of pinned memory: ${(performance.now() - start).toFixed(0)} ms`);
    // The most that a child ever had in memory, also while it was a copy of this process.
    const { stdout } = spawnSync(process.execPath, ['-p', 'process.resourceUsage().maxRSS'], { encoding: 'utf8' });
    const most = Number(stdout) * 1024;
    t.true(most > 0 && most < resident - RAM / 2, `the child had ${most} bytes of the ${resident} that are here`);
  },
);
