/**
 * Mappings that the kernel rejects. Memory is truncated, a BAR does not decode, an address is beyond the IOMMU. The
 * earlier state remains.
 */
import { ftruncateSync } from 'node:fs';
import type { ExecutionContext } from 'ava';
import {
  AddressRange,
  type DeviceMemory,
  GuestMemory,
  PeerDmaError,
  type VfioContainerManager,
  type VfioDevice,
  type VfioRegion,
} from '../../ts/index.ts';
import { truncatableFile } from '../support/truncatable-file.ts';
import { testWith } from './support/devices.ts';
import { RAM_LENGTH, RAM_START, SINK, pattern, peerBar, send } from './support/rig.ts';
import { PIECE, openInOwnContainer, reaches, scattered, completeState } from './support/two-containers.ts';

const FIRST = 0x1_0000_0000n;
const SECOND = 0x2_0000_0000n;
const MSI_WINDOW = 0xfee0_0000n;

async function guest(t: ExecutionContext): Promise<GuestMemory> {
  const memory = await GuestMemory.create({ ram: [{ start: RAM_START, length: RAM_LENGTH }] });
  t.teardown(() => memory.close());
  return memory;
}

async function windowOf(memory: GuestMemory, bar: VfioRegion): Promise<DeviceMemory> {
  const window = memory.newDeviceMemory({ name: 'bar2', length: bar.length });
  await window.addMapping({ range: AddressRange.of(0n, bar.length), backing: bar.backing() });
  return window;
}

/** Bit 1 of the Command register of PCI config space. */
function decode(device: VfioDevice, on: boolean): void {
  const [low = 0, high = 0] = device.config.read(4n, 2);
  device.config.write(4n, Uint8Array.of(on ? low | 2 : low & ~2, high));
}

function barState(memory: GuestMemory): (string | undefined)[] {
  return memory.inspect().targets.map(({ mappings }) => mappings.find(({ region }) => region === 'bar2')?.state);
}

testWith(
  { edu: 1, ivshmem: 1 },
  'a BAR without memory decode fails a change that requires it, which succeeds once decode is on',
  async (t, devices) => {
    const memory = await guest(t);
    const { manager, edu } = await openInOwnContainer(t, memory, devices.edu[0] ?? '', 'required');
    const peer = await manager.open(devices.ivshmem[0] ?? '');
    const bar = peerBar(peer);
    const window = await windowOf(memory, bar);
    decode(peer, false);
    const before = await completeState(memory, manager);
    for (let attempt = 0; attempt < 2; attempt++) {
      const error = await t.throwsAsync(window.mapToGuest(FIRST), {
        instanceOf: PeerDmaError,
        code: 'ERR_MEMORY_FAULT',
      });
      t.is(error?.errno, 'EFAULT');
      t.deepEqual(await completeState(memory, manager), before);
    }
    await send(memory, edu, pattern(21), SINK);
    t.deepEqual(memory.read(SINK, 2048), pattern(21), 'RAM is as before');

    decode(peer, true);
    await window.mapToGuest(FIRST);
    t.true(await reaches(memory, edu, FIRST, bar));

    // Without decode it could be neither moved nor restored, so the change does not unmap it.
    decode(peer, false);
    const inPlace = await completeState(memory, manager);
    const error = await t.throwsAsync(window.mapToGuest(SECOND), {
      instanceOf: PeerDmaError,
      code: 'ERR_MEMORY_FAULT',
    });
    t.is(error?.range?.start, SECOND);
    t.is(error?.target, manager.inspect().containers[0]?.name);
    t.deepEqual(await completeState(memory, manager), inPlace);
    decode(peer, true);
    t.true(await reaches(memory, edu, FIRST, bar), 'it is mapped as before');
    await window.mapToGuest(SECOND);
    t.true(await reaches(memory, edu, SECOND, bar));
    t.false(await reaches(memory, edu, FIRST, bar));
  },
);

testWith(
  { edu: 1, ivshmem: 1 },
  'a BAR without memory decode is recorded as failed, and mapped when its address is set again',
  async (t, devices) => {
    const memory = await guest(t);
    const { manager, edu } = await openInOwnContainer(t, memory, devices.edu[0] ?? '');
    const peer = await manager.open(devices.ivshmem[0] ?? '');
    const bar = peerBar(peer);
    const window = await windowOf(memory, bar);
    await window.mapToGuest(FIRST);
    decode(peer, false);
    await window.mapToGuest(SECOND);
    t.deepEqual(barState(memory), ['failed']);
    t.is(manager.inspect().containers[0]?.dmaAvailable, 65535 - 1);
    decode(peer, true);
    await window.mapToGuest(SECOND);
    t.deepEqual(barState(memory), ['mapped']);
    t.true(await reaches(memory, edu, SECOND, bar));
    t.false(await reaches(memory, edu, FIRST, bar));
  },
);

testWith({ edu: 2 }, 'truncated memory fails only the changes that map it again', async (t, { edu }) => {
  const memory = await guest(t);
  const { manager, edu: engine } = await openInOwnContainer(t, memory, edu[0] ?? '');
  const { fd, file } = truncatableFile(t, 4n * PIECE);
  const region = await memory.regions.addRegion({ name: 'shrinks', range: AddressRange.of(FIRST, 4n * PIECE) });
  await region.addMapping({ range: AddressRange.of(0n, 4n * PIECE), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const whole = await completeState(memory, manager);
  ftruncateSync(fd, Number(PIECE));
  t.true(await reaches(memory, engine, FIRST, file), 'the page that is left');
  await send(memory, engine, pattern(30), FIRST + 2n * PIECE); // into pinned pages that belong to no file any more

  const late = () => openInOwnContainer(t, memory, edu[1] ?? '');
  await t.throwsAsync(late(), { instanceOf: PeerDmaError, code: 'ERR_MEMORY_FAULT' });
  t.deepEqual(await completeState(memory, manager), whole, 'a registration that fails changes nothing');

  const other = await scattered(t, memory, 'other', [SECOND]);
  await other.region.mapToGuest();
  t.true(await reaches(memory, engine, SECOND, other.file), 'changes without it succeed');
  await other.region.unmapFromGuest();

  await region.unmapFromGuest();
  const without = await completeState(memory, manager);
  for (let attempt = 0; attempt < 2; attempt++) {
    await t.throwsAsync(region.mapToGuest(), { instanceOf: PeerDmaError, code: 'ERR_MEMORY_FAULT' });
    t.deepEqual(await completeState(memory, manager), without);
  }
  ftruncateSync(fd, Number(4n * PIECE));
  await region.mapToGuest();
  t.true(await reaches(memory, engine, FIRST + 3n * PIECE, file, 3n * PIECE));
  const { edu: second } = await late();
  t.true(await reaches(memory, second, FIRST + 3n * PIECE, file, 3n * PIECE));
});

testWith({ edu: 1 }, 'truncated memory cannot be moved, and stays mapped', async (t, { edu: [bdf = ''] }) => {
  const memory = await guest(t);
  const { manager, edu } = await openInOwnContainer(t, memory, bdf, 'required');
  const { fd, file } = truncatableFile(t, 2n * PIECE);
  const window = memory.newDeviceMemory({ name: 'bar2', length: 2n * PIECE });
  await window.addMapping({ range: AddressRange.of(0n, 2n * PIECE), backing: { file, offset: 0n } });
  await window.mapToGuest(FIRST);
  ftruncateSync(fd, Number(PIECE));
  const before = await completeState(memory, manager);
  const error = await t.throwsAsync(window.mapToGuest(SECOND), {
    instanceOf: PeerDmaError,
    code: 'ERR_MEMORY_FAULT',
  });
  t.regex(error?.message ?? '', /truncated/);
  t.is(error?.target, manager.inspect().containers[0]?.name);
  t.deepEqual(await completeState(memory, manager), before);
  t.true(await reaches(memory, edu, FIRST, file), 'the page that is left');
  ftruncateSync(fd, Number(2n * PIECE));
  await window.mapToGuest(SECOND);
  t.true(await reaches(memory, edu, SECOND + PIECE, file, PIECE));
  t.false(await reaches(memory, edu, FIRST + PIECE, file, PIECE));
});

testWith(
  { edu: 2 },
  'RAM at an address beyond the IOMMU fails a change and a replay, which restore everything',
  async (t, { edu }) => {
    const memory = await guest(t);
    const one = await openInOwnContainer(t, memory, edu[0] ?? '');
    const places = [MSI_WINDOW, ...beyondAperture(one.manager)];
    for (const unreachable of places) {
      const { region, file } = await scattered(t, memory, 'reachable in part', [
        unreachable - 2n * PIECE,
        unreachable - PIECE,
        unreachable,
      ]);
      const before = await completeState(memory, one.manager);
      const error = await t.throwsAsync(region.mapToGuest(), {
        instanceOf: PeerDmaError,
        code: 'ERR_IOVA_UNREACHABLE',
      });
      t.is(error?.errno, 'EINVAL');
      t.is(error?.range?.start, unreachable);
      t.deepEqual(await completeState(memory, one.manager), before);
      t.false(await reaches(memory, one.edu, unreachable - PIECE, file, PIECE));
      await region.removeMappings(AddressRange.of(2n * PIECE, PIECE));
      await region.mapToGuest();
      t.true(await reaches(memory, one.edu, unreachable - PIECE, file, PIECE));
      await region.remove();
    }
    await one.manager.close();
    const { region } = await scattered(t, memory, 'all over', [
      MSI_WINDOW - 4n * PIECE,
      MSI_WINDOW,
      ...places.slice(1),
    ]);
    await region.mapToGuest(); // while no target requires it
    const before = await completeState(memory, one.manager);
    await t.throwsAsync(openInOwnContainer(t, memory, edu[1] ?? ''), {
      instanceOf: PeerDmaError,
      code: 'ERR_IOVA_UNREACHABLE',
    });
    t.deepEqual(await completeState(memory, one.manager), before, 'nothing is pinned any more');
    await region.remove();
    await openInOwnContainer(t, memory, edu[1] ?? '');
  },
);

testWith(
  { edu: 2, ivshmem: 1 },
  'a BAR that moves beyond the IOMMU stays mapped, or is recorded as failed',
  async (t, devices) => {
    const memory = await guest(t);
    const lenient = await openInOwnContainer(t, memory, devices.edu[1] ?? '');
    const bar = peerBar(await lenient.manager.open(devices.ivshmem[0] ?? ''));
    const strict = await openInOwnContainer(t, memory, devices.edu[0] ?? '', 'required');
    const window = await windowOf(memory, bar);
    await window.mapToGuest(FIRST);
    const places = [
      MSI_WINDOW - bar.length / 2n,
      ...beyondAperture(strict.manager).flatMap((end) => [end - bar.length / 2n, end]),
    ];
    for (const place of places) {
      const before = await completeState(memory, lenient.manager, strict.manager);
      const error = await t.throwsAsync(window.mapToGuest(place), {
        instanceOf: PeerDmaError,
        code: 'ERR_IOVA_UNREACHABLE',
      });
      t.is(error?.errno, 'EINVAL');
      t.is(error?.target, strict.manager.inspect().containers[0]?.name, 'the target that requires it');
      t.deepEqual(await completeState(memory, lenient.manager, strict.manager), before);
      for (const { edu } of [lenient, strict]) t.true(await reaches(memory, edu, FIRST, bar), 'still there');
    }
    await strict.manager.close();
    for (const place of places) {
      await window.mapToGuest(place);
      t.deepEqual(barState(memory), ['failed']);
      t.false(await reaches(memory, lenient.edu, FIRST, bar));
      await window.mapToGuest(FIRST);
      t.deepEqual(barState(memory), ['mapped']);
      t.true(await reaches(memory, lenient.edu, FIRST, bar));
    }
  },
);

/**
 * The first address beyond the IOMMU, or `undefined` if it is beyond the guest's width, too. The testbed starts a guest
 * for that with `--address-bits 39`.
 */
function beyondAperture(manager: VfioContainerManager): bigint[] {
  const end = BigInt(manager.inspect().containers[0]?.iovaRanges.at(-1)?.end ?? 0);
  return end < 1n << 40n ? [end] : [];
}
