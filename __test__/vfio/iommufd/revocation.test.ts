/**
 * The kernel takes a BAR away from an IOMMU without a word when its device stops decoding memory, sleeps or is reset. Whoever
 * does that through this package need not care; what others do is found by refresh().
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
import { addressSpaceOf } from '../../../ts/guest/guest-memory.ts';
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
  /** Whose address spaces these are. */
  readonly managers: readonly [VfioContainerManager, VfioContainerManager];
  readonly peer: VfioDevice;
  readonly bar: VfioRegion;
}

/** A BAR that two address spaces have, shown by guest memory itself, with no assigned device to take care of it. */
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

/** How the BAR stands with each target. */
function states(memory: GuestMemory): (string | undefined)[] {
  const ofBar = (mappings: readonly { region: string; state: string; code?: string }[]) =>
    mappings.find(({ region }) => region === 'bar2');
  return memory.inspect().targets.map(({ mappings }) => ofBar(mappings)?.code ?? ofBar(mappings)?.state);
}

/** Which engines reach the BAR: what they send arrives whole, or not at all. */
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

/** After what the package does by itself when it sees the device change. */
function settled(memory: GuestMemory): Promise<void> {
  return addressSpaceOf(memory).betweenChanges(() => {});
}

testWith(
  { edu: 2, ivshmem: 1 },
  'memory decode off: nothing arrives; on again: every address space has the BAR, without anybody’s doing',
  async (t, { edu, ivshmem: [peerBdf = ''] }) => {
    const all = await scene(t, edu, peerBdf);
    const { memory, engines, peer, bar } = all;
    t.deepEqual(await reach(all, 10), [true, true]);
    const before = bar.read(0n, SIZE);
    decode(peer, false);
    t.deepEqual(states(memory), ['ERR_MAPPING_REVOKED', 'ERR_MAPPING_REVOKED'], 'never said to be mapped');
    await settled(memory);
    t.deepEqual(states(memory), ['ERR_MEMORY_FAULT', 'ERR_MEMORY_FAULT'], 'and can’t be mapped now');
    for (const engine of engines) await send(memory, engine, pattern(20), BAR);
    decode(peer, true);
    t.deepEqual(bar.read(0n, SIZE), before, 'what was sent meanwhile is nowhere');
    await settled(memory);
    t.deepEqual(states(memory), ['mapped', 'mapped']);
    t.deepEqual(await reach(all, 30), [true, true]);
  },
);

testWith(
  { edu: 2, ivshmem: 2 },
  'a reset of the device, alone or with its bus, leaves the BAR in every address space',
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
  'a reset that can’t be done leaves the BAR in every address space',
  async (t, { edu, ivshmem }) => {
    const all = await scene(t, edu, ivshmem.find((bdf) => bdf.startsWith('0000:00:')) ?? '');
    await t.throwsAsync(all.peer.reset(), { code: 'ERR_RESET_UNSUPPORTED' });
    t.deepEqual(states(all.memory), ['mapped', 'mapped']);
    t.deepEqual(await reach(all, 60), [true, true]);
  },
);

testWith(
  { edu: 2, nvme: 1 },
  'a disk that sleeps and wakes up, or is asked to reset itself, is in every address space again',
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
  'what another hand has done to a device is found by refresh(), which says what it found',
  async (t, { edu, ivshmem: [peerBdf = ''] }) => {
    const all = await scene(t, edu, peerBdf);
    const {
      memory,
      managers: [near, far],
      peer,
    } = all;
    const found = async (manager: VfioContainerManager) =>
      (await manager.refresh()).map(({ name, before, state, code }) => ({ name, before, state, code }));
    const hand = behindTheBack(peer);
    hand(false);
    hand(true);
    t.deepEqual(await reach(all, 90), [false, false], 'void, though nobody here knows');
    t.deepEqual(await found(near), [{ name: 'bar2', before: 'mapped', state: 'mapped', code: undefined }]);
    t.deepEqual(await reach(all, 100), [true, false], 'one of them is refreshed');
    hand(false);
    t.deepEqual(await found(far), [{ name: 'bar2', before: 'mapped', state: 'failed', code: 'ERR_MEMORY_FAULT' }]);
    hand(true);
    t.deepEqual(await found(far), [{ name: 'bar2', before: 'failed', state: 'mapped', code: undefined }]);
    t.deepEqual(await found(near), [{ name: 'bar2', before: 'mapped', state: 'mapped', code: undefined }]);
    t.deepEqual(await reach(all, 110), [true, true]);
    for (const { mappings } of memory.inspect().targets) {
      t.is(mappings.filter(({ kind, state }) => kind === 'ram' && state === 'mapped').length, 1, 'RAM is left alone');
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

/** Switches memory decode by the device's own descriptor, as a process does that was given a copy of it. */
function behindTheBack(peer: VfioDevice): (on: boolean) => void {
  // vfio-pci has region N of a device at N << 40 of its file; 7 is config space.
  const command = Number((7n << 40n) + COMMAND);
  const [low = 0, high = 0] = peer.config.read(COMMAND, 2);
  const fd = descriptorOf(peer);
  return (on) => void writeSync(fd, Uint8Array.of(on ? low | MEMORY : low & ~MEMORY, high), 0, 2, command);
}

/** Its file below /dev/vfio/devices, as /sys names it. */
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
