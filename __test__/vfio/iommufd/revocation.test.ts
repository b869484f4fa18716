/**
 * The kernel revokes the IOMMU mappings of a BAR without a notification. It does so when the device stops decoding
 * memory, enters a low-power state or is reset. Operations of this package map the BAR again; refresh() finds
 * revocations by other processes.
 */
import { readdirSync, readlinkSync, writeSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import { Edu } from '../../../examples/devices/edu.ts';
import {
  AddressRange,
  type GuestMemory,
  type VfioContainerManager,
  type VfioDevice,
  type VfioRegion,
} from '../../../ts/index.ts';
import { guestAddressSpaceOf } from '../../../ts/guest/guest-memory.ts';
import { newManager } from '../support/backend.ts';
import { testWith } from '../support/devices.ts';
import { pattern, peerBar, rig, send } from '../support/rig.ts';

const BAR = 0x1_0000_0000n;
const COMMAND = 4n;
const MEMORY = 0x2;
const SIZE = Edu.BUFFER_SIZE;

interface Scene {
  readonly memory: GuestMemory;
  /** Engines behind IOMMUs of two address spaces. */
  readonly engines: readonly Edu[];
  /** The owners of these address spaces. */
  readonly managers: readonly [VfioContainerManager, VfioContainerManager];
  readonly peer: VfioDevice;
  readonly bar: VfioRegion;
}

/** A BAR that guest memory maps into two address spaces, without an assigned device. */
async function scene(t: ExecutionContext, edus: readonly string[], peerBdf: string): Promise<Scene> {
  const { memory, manager, open } = await rig(t);
  const apart: VfioContainerManager = newManager(memory);
  t.teardown(() => apart.close());
  const engines = [new Edu(await open(edus[0] ?? '')), new Edu(await apart.open(edus[1] ?? ''))];
  const peer = await open(peerBdf);
  const bar = peerBar(peer);
  const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
  await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
  await window.mapToGuest(BAR);
  return { memory, engines, managers: [manager, apart], peer, bar };
}

/** The state of the BAR in each target. */
function states(memory: GuestMemory): (string | undefined)[] {
  const ofBar = (mappings: readonly { region: string; state: string; code?: string }[]) =>
    mappings.find(({ region }) => region === 'bar2');
  return memory.inspect().targets.map(({ mappings }) => ofBar(mappings)?.code ?? ofBar(mappings)?.state);
}

/** The engines that reach the BAR: their bytes arrive completely or not at all. */
async function reach({ memory, engines, bar }: Scene, seed: number): Promise<boolean[]> {
  const found: boolean[] = [];
  for (const [index, engine] of engines.entries()) {
    const bytes = pattern(seed + index);
    const before = bar.read(0n, SIZE);
    await send(memory, engine, bytes, BAR);
    const after = bar.read(0n, SIZE);
    const arrived = Buffer.compare(after, bytes) === 0;
    if (!arrived && Buffer.compare(after, before) !== 0) throw new Error('part of it arrived');
    found.push(arrived);
  }
  return found;
}

function decode({ config }: VfioDevice, on: boolean): void {
  const [low = 0, high = 0] = config.read(COMMAND, 2);
  config.write(COMMAND, Uint8Array.of(on ? low | MEMORY : low & ~MEMORY, high));
}

/** Waits until the package has handled the change of the device. */
function settled(memory: GuestMemory): Promise<void> {
  return guestAddressSpaceOf(memory).betweenChanges(() => {});
}

testWith(
  { edu: 2, ivshmem: 1 },
  'with memory decode off nothing arrives; with decode on again every address space maps the BAR',
  async (t, { edu, ivshmem: [peerBdf = ''] }) => {
    const all = await scene(t, edu, peerBdf);
    const { memory, engines, peer, bar } = all;
    t.deepEqual(await reach(all, 10), [true, true]);
    const before = bar.read(0n, SIZE);
    decode(peer, false);
    t.deepEqual(states(memory), ['ERR_MAPPING_REVOKED', 'ERR_MAPPING_REVOKED'], 'the state is never `mapped`');
    await settled(memory);
    t.deepEqual(
      states(memory),
      ['ERR_MEMORY_FAULT', 'ERR_MEMORY_FAULT'],
      'and the reason is that it cannot be mapped now',
    );
    for (const engine of engines) await send(memory, engine, pattern(20), BAR);
    decode(peer, true);
    t.deepEqual(bar.read(0n, SIZE), before, 'the bytes sent meanwhile are not there');
    await settled(memory);
    t.deepEqual(states(memory), ['mapped', 'mapped']);
    t.deepEqual(await reach(all, 30), [true, true]);
  },
);

testWith(
  { edu: 2, ivshmem: 2 },
  'after a reset of the device or its bus, every address space maps the BAR',
  async (t, { edu, ivshmem }) => {
    const all = await scene(t, edu, ivshmem.find((bdf) => !bdf.startsWith('0000:00:')) ?? '');
    const { memory, peer } = all;
    for (const [seed, reset] of [
      [40, () => peer.reset()],
      [50, () => peer.hotReset([])],
    ] as const) {
      await reset();
      t.deepEqual(states(memory), ['mapped', 'mapped']);
      t.deepEqual(await reach(all, seed), [true, true]);
    }
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'after a reset that fails, every address space maps the BAR',
  async (t, { edu, ivshmem }) => {
    const all = await scene(t, edu, ivshmem.find((bdf) => bdf.startsWith('0000:00:')) ?? '');
    await t.throwsAsync(all.peer.reset(), { code: 'ERR_RESET_UNSUPPORTED' });
    t.deepEqual(states(all.memory), ['mapped', 'mapped']);
    t.deepEqual(await reach(all, 60), [true, true]);
  },
);

testWith(
  { edu: 2, nvme: 1 },
  'after a low-power state, or a reset requested by the guest, every address space maps the BAR of a disk',
  async (t, { edu, nvme: [peerBdf = ''] }) => {
    const all = await scene(t, edu, peerBdf);
    const { memory, peer } = all;
    const control = capability(peer, 0x01) + 4n;
    peer.config.write(control, Uint8Array.of(3, 0));
    t.deepEqual(states(memory), ['ERR_MAPPING_REVOKED', 'ERR_MAPPING_REVOKED']);
    peer.config.write(control, Uint8Array.of(0, 0));
    decode(peer, true);
    await settled(memory);
    t.deepEqual(states(memory), ['mapped', 'mapped']);
    t.deepEqual(await reach(all, 70), [true, true]);
    peer.config.write(capability(peer, 0x10) + 9n, Uint8Array.of(0x80));
    decode(peer, true);
    await settled(memory);
    t.deepEqual(states(memory), ['mapped', 'mapped']);
    t.deepEqual(await reach(all, 80), [true, true]);
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'refresh() finds and reports a revocation by another process',
  async (t, { edu, ivshmem: [peerBdf = ''] }) => {
    const all = await scene(t, edu, peerBdf);
    const {
      memory,
      managers: [near, far],
      peer,
    } = all;
    const found = async (manager: VfioContainerManager) =>
      (await manager.refresh()).map(({ region, before, state, code }) => ({ region, before, state, code }));
    const hand = decodeSetterByFile(peer);
    hand(false);
    hand(true);
    t.deepEqual(await reach(all, 90), [false, false], 'revoked, which nothing here has noticed');
    t.deepEqual(await found(near), [{ region: 'bar2', before: 'mapped', state: 'mapped', code: undefined }]);
    t.deepEqual(await reach(all, 100), [true, false], 'one of them is refreshed');
    hand(false);
    t.deepEqual(await found(far), [{ region: 'bar2', before: 'mapped', state: 'failed', code: 'ERR_MEMORY_FAULT' }]);
    hand(true);
    t.deepEqual(await found(far), [{ region: 'bar2', before: 'failed', state: 'mapped', code: undefined }]);
    t.deepEqual(await found(near), [{ region: 'bar2', before: 'mapped', state: 'mapped', code: undefined }]);
    t.deepEqual(await reach(all, 110), [true, true]);
    for (const { mappings } of memory.inspect().targets) {
      t.is(mappings.filter(({ kind, state }) => kind === 'ram' && state === 'mapped').length, 1, 'RAM is not changed');
    }
  },
);

/** Offset of a capability in config space. */
function capability({ config, bdf }: VfioDevice, id: number): bigint {
  let [at = 0] = config.read(0x34n, 1);
  while (at !== 0) {
    const [found = 0, next = 0] = config.read(BigInt(at), 2);
    if (found === id) return BigInt(at);
    at = next;
  }
  throw new Error(`${bdf} has no capability ${id}`);
}

/** Sets memory decode by the device's own descriptor, as another process with a copy of it would. */
function decodeSetterByFile(peer: VfioDevice): (on: boolean) => void {
  // Region N of a device of vfio-pci is at N << 40 of its file; 7 is config space.
  const command = Number((7n << 40n) + COMMAND);
  const [low = 0, high = 0] = peer.config.read(COMMAND, 2);
  const fd = descriptorOf(peer);
  return (on) => void writeSync(fd, Uint8Array.of(on ? low | MEMORY : low & ~MEMORY, high), 0, 2, command);
}

/** Its file below /dev/vfio/devices, from /sys. */
function descriptorOf({ bdf }: VfioDevice): number {
  const [name = ''] = readdirSync(`/sys/bus/pci/devices/${bdf}/vfio-dev`);
  for (const fd of readdirSync('/proc/self/fd')) {
    try {
      if (readlinkSync(`/proc/self/fd/${fd}`) === `/dev/vfio/devices/${name}`) return Number(fd);
    } catch {
      // the descriptor of the folder itself
    }
  }
  throw new Error(`${bdf} is not open by its own file`);
}
