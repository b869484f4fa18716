/**
 * A BAR that the kernel won't map: the change goes on, and the outcome can be asked for.
 */
import {
  AddressRange,
  type DeviceMemory,
  type GuestMemory,
  PeerDmaError,
  type VfioDevice,
  type VfioRegion,
} from '../../ts/index.ts';
import { testWith } from './support/devices.ts';
import { pattern, peerBar, rig, send } from './support/rig.ts';
import { RULES } from './support/backend.ts';

const COMMAND = 4n;
const MEMORY_ENABLE = 2;
const ADDRESS = 0x1_0000_0000n;

function decode(device: VfioDevice, on: boolean): void {
  const [low = 0, high = 0] = device.config.read(COMMAND, 2);
  device.config.write(COMMAND, Uint8Array.of(on ? low | MEMORY_ENABLE : low & ~MEMORY_ENABLE, high));
}

async function windowOf(memory: GuestMemory, bar: VfioRegion): Promise<DeviceMemory> {
  const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
  await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
  return window;
}

testWith(
  { edu: 1, ivshmem: 1 },
  'a BAR whose memory decode is off is recorded as failed, and mapped once it is on',
  async (t, devices) => {
    const { memory, open, edu: openEdu } = await rig(t);
    const edu = await openEdu(devices.edu[0] ?? '');
    const peer = await open(devices.ivshmem[0] ?? '');
    const bar = peerBar(peer);
    const window = await windowOf(memory, bar);
    decode(peer, false);
    await window.mapToGuest(ADDRESS);

    const [target] = memory.inspect().targets;
    const failed = target?.mappings.find(({ region }) => region === 'bar2');
    t.is(failed?.state, 'failed');
    t.is(failed?.errno, RULES.deviceOff);
    t.is(failed?.code, 'ERR_MEMORY_FAULT');
    t.regex(failed?.reason ?? '', new RegExp(peer.bdf.replaceAll('.', '\\.')), 'names the device');
    t.regex(failed?.reason ?? '', /memory decode/);
    t.is(target?.mappings.filter(({ state }) => state === 'mapped').length, 1, 'RAM is mapped all the same');
    t.throws(() => bar.read32(0n), { instanceOf: PeerDmaError, code: 'ERR_BAR_DISABLED' });

    await window.unmapFromGuest();
    decode(peer, true);
    await window.mapToGuest(ADDRESS);
    t.is(memory.inspect().targets[0]?.mappings.find(({ region }) => region === 'bar2')?.state, 'mapped');
    await send(memory, edu, pattern(20), ADDRESS);
    t.deepEqual(bar.read(0n, 2048), pattern(20));
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a BAR on the MSI window is recorded as unreachable, with the ranges that would do',
  async (t, devices) => {
    const { memory, open } = await rig(t);
    await open(devices.edu[0] ?? '');
    const window = await windowOf(memory, peerBar(await open(devices.ivshmem[0] ?? '')));
    await window.mapToGuest(0xfe00_0000n);
    const failed = memory.inspect().targets[0]?.mappings.find(({ region }) => region === 'bar2');
    t.is(failed?.state, 'failed');
    t.is(failed?.errno, 'EINVAL');
    t.is(failed?.code, 'ERR_IOVA_UNREACHABLE');
    t.regex(failed?.reason ?? '', /0x0\.\.0xfee00000/);
  },
);
