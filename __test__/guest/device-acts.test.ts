/**
 * Operations on a device, such as a reset, while no target maps its memory. Afterwards all targets map it again, or its
 * absence is recorded.
 */
import test, { type ExecutionContext } from 'ava';
import {
  AddressRange,
  type DeviceMemory,
  type DmaMapperHandle,
  type GuestMemory,
  type PeerToPeer,
} from '../../ts/index.ts';
import { type GuestAddressSpace } from '../../ts/guest/guest-address-space.ts';
import { guestAddressSpaceOf } from '../../ts/guest/guest-memory.ts';
import { MemoryOfDevice, RevocableTarget } from '../support/device-file.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE } from '../support/pages.ts';
import { ACCEPT, BatchRecordingTarget, RecordingTarget, RefuseAt } from '../support/recording-target.ts';

interface Stage {
  readonly memory: GuestMemory;
  readonly space: GuestAddressSpace;
  readonly device: MemoryOfDevice;
  /** Two pages of the device at page 8, with a page without memory between. */
  readonly bar: DeviceMemory;
  /** Targets like iommufd, like type1, and without host memory. */
  readonly targets: readonly [RevocableTarget, BatchRecordingTarget, RecordingTarget];
  readonly handles: readonly DmaMapperHandle[];
  /** The calls of the targets and the operations, in order. */
  readonly log: string[];
}

async function stage(t: ExecutionContext, policies: readonly PeerToPeer[] = ['required']): Promise<Stage> {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(2) }] });
  const device = new MemoryOfDevice(t, 'device', 4);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(3) });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file: device.file, offset: 0n } });
  await bar.addMapping({ range: AddressRange.of(at(2), PAGE), backing: { file: device.file, offset: at(2) } });
  await bar.mapToGuest(at(8));
  const log: string[] = [];
  const targets = [
    new RevocableTarget({ name: 'one', async: true }),
    new BatchRecordingTarget({ name: 'two', needsVa: true }),
    new RecordingTarget({ name: 'three' }),
  ] as const;
  const handles: DmaMapperHandle[] = [];
  for (const [index, target] of targets.entries()) {
    const peerToPeer = policies[index] ?? policies[0] ?? 'required';
    handles.push(await memory.dmaMappers.addDmaMapper(target, { peerToPeer }));
    target.judge = ({ op, range }) => void log.push(`${target.name} ${op} ${range.start / PAGE}`);
  }
  t.teardown(() => {
    const breaches = targets.flatMap((target) => target.breaches);
    if (breaches.length > 0) throw new Error(breaches.join('; '));
  });
  return { memory, space: guestAddressSpaceOf(memory), device, bar, targets, handles, log };
}

const FULL = ['0x0..0x2000 rw ram0', '0x8000..0x9000 rw bar', '0xa000..0xb000 rw bar'];

const TAKEN = ['one unmap 8', 'one unmap 10', 'two unmap 8', 'two unmap 10', 'three unmap 8', 'three unmap 10'];
const GIVEN = ['three map 8', 'three map 10', 'two map 8', 'two map 10', 'one map 8', 'one map 10'];

function states(handle: DmaMapperHandle | undefined): string[] {
  return (handle?.status() ?? []).map(({ state, code }) => (code === undefined ? state : `${state} ${code}`));
}

const MAPPED = ['mapped', 'mapped', 'mapped'];

test('all targets unmap the memory before the operation, and map it again after it', async (t) => {
  const { space, device, targets, handles, log } = await stage(t);
  const lent = targets[1].held()[1]?.hostMemory;
  await space.runWhileUnmapped([device.memory], async () => {
    log.push('act');
    device.revoke();
    for (const target of targets) t.deepEqual(target.heldText(), FULL.slice(0, 1), 'RAM stays');
    throwsCode(t, () => lent?.read(0n, 1), 'ERR_CLOSED');
  });
  t.deepEqual(log, [...TAKEN, 'act', ...GIVEN]);
  for (const target of targets) t.deepEqual(target.heldText(), FULL);
  for (const handle of handles) t.deepEqual(states(handle), MAPPED, 'and it is not revoked');
  t.is(targets[1].held()[1]?.hostMemory?.read(0n, 1)[0], 0x40);
});

test('passes on the error of the action, and maps the memory again', async (t) => {
  for (const act of [
    (): never => {
      throw new Error('the reset failed');
    },
    () => Promise.reject(new Error('the reset failed')),
  ]) {
    const { space, device, targets, handles } = await stage(t);
    await t.throwsAsync(space.runWhileUnmapped([device.memory], act), { message: 'the reset failed' });
    for (const target of targets) t.deepEqual(target.heldText(), FULL);
    for (const handle of handles) t.deepEqual(states(handle), MAPPED);
  }
});

test('reports an action that throws and a rollback that fails, and records what each target misses', async (t) => {
  const { space, device, targets, handles } = await stage(t);
  const [, two] = targets;
  const act = () => {
    two.judge = ({ op, range }) => (op === 'map' && range.start === at(10) ? new Error('no room') : undefined);
    throw new Error('the reset failed');
  };
  const error = await rejectsCode(t, space.runWhileUnmapped([device.memory], act), 'ERR_ROLLBACK_FAILED');
  t.regex(error.message, /the reset failed.*no room/);
  t.deepEqual(handles.map(states), [MAPPED, ['mapped', 'mapped', 'failed ERR_MAP_FAILED'], MAPPED]);
});

test('if any unmap fails, the operation does not run, the range is quarantined, and nothing else changes', async (t) => {
  for (let which = 0; which < 3; which++) {
    for (let k = 0; k < 2; k++) {
      const { memory, space, device, bar, targets, handles } = await stage(t);
      const picky = targets[which];
      if (picky === undefined) throw new Error('there are three');
      picky.judge = new RefuseAt('unmap', k).judge;
      const act = space.runWhileUnmapped([device.memory], () => t.fail('the operation has run'));
      const error = await rejectsCode(t, act, 'ERR_UNMAP_FAILED');
      t.is(error.target, picky.name);
      t.is(error.range?.start, at(8 + 2 * k));
      const kept = ['mapped', 'mapped', 'mapped'];
      kept[1 + k] = 'quarantined ERR_UNMAP_FAILED';
      t.deepEqual(
        handles.map(states),
        handles.map((_, index) => (index === which ? kept : MAPPED)),
      );
      for (const target of targets) t.deepEqual(target.heldText(), FULL);
      await rejectsCode(t, bar.mapToGuest(at(16)), 'ERR_RANGE_QUARANTINED');
      picky.closeWithMappings();
      await memory.dmaMappers.targetClosed(picky);
      await space.runWhileUnmapped([device.memory], () => {});
      await bar.mapToGuest(at(16));
    }
  }
});

for (const policy of ['required', 'best-effort'] as const) {
  test(`a target that fails to map it afterwards does not affect others; device memory is ${policy}`, async (t) => {
    for (let which = 0; which < 3; which++) {
      const { space, device, bar, targets, handles } = await stage(t, [policy]);
      const picky = targets[which];
      if (picky === undefined) throw new Error('there are three');
      picky.judge = new RefuseAt('map', 0, new Error('no room')).judge;
      let done = false;
      const act = space.runWhileUnmapped([device.memory], () => void (done = true));
      if (policy === 'best-effort') await act;
      else t.is((await rejectsCode(t, act, 'ERR_MAP_FAILED')).target, picky.name);
      t.true(done);
      t.deepEqual(
        handles.map(states),
        handles.map((_, index) => (index === which ? ['mapped', 'failed ERR_MAP_FAILED', 'mapped'] : MAPPED)),
        `${picky.name} refuses`,
      );
      await bar.mapToGuest(at(8));
      t.deepEqual(handles.map(states), [MAPPED, MAPPED, MAPPED], 'the next change maps it');
      for (const target of targets) t.deepEqual(target.heldText(), FULL);
    }
  });
}

test('each target follows its own policy: with best-effort it skips memory, with off it is not called', async (t) => {
  const { space, device, targets, handles, log } = await stage(t, ['best-effort', 'off', 'required']);
  const [one] = targets;
  await space.runWhileUnmapped([device.memory], () => {
    one.judge = ({ op }) => (op === 'map' ? new Error('not now') : undefined);
  });
  t.deepEqual(handles.map(states), [
    ['mapped', 'failed ERR_MAP_FAILED', 'failed ERR_MAP_FAILED'],
    ['mapped', 'skipped', 'skipped'],
    MAPPED,
  ]);
  t.false(log.some((entry) => entry.startsWith('two')));
  one.judge = ACCEPT;
  await space.runWhileUnmapped([device.memory], () => {});
  t.is(states(handles[0])[1], 'failed ERR_MAP_FAILED', 'memory that was missing before is missing after');
  await space.retryDeviceMemory([device.memory]);
  t.deepEqual(states(handles[0]), MAPPED);
});

test('changes called meanwhile apply afterwards, and no other device is touched', async (t) => {
  const { memory, space, device, bar, targets, handles, log } = await stage(t);
  const other = new MemoryOfDevice(t, 'other device', 1, 0x70);
  const window = memory.newDeviceMemory({ name: 'window', length: PAGE });
  await window.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file: other.file, offset: 0n } });
  await window.mapToGuest(at(32));
  log.length = 0;
  let pending: Promise<unknown>[] = [];
  const late = new RecordingTarget({ name: 'late', needsVa: true });
  await space.runWhileUnmapped([device.memory], async () => {
    pending = [
      bar.mapToGuest(at(16)),
      space.runWhileUnmapped([device.memory], () => void log.push('second act')),
      memory.dmaMappers.addDmaMapper(late),
      handles[0]?.refresh() ?? Promise.reject(new Error('there are three')),
      bar.unmapFromGuest(),
    ];
    await new Promise((resolve) => setImmediate(resolve));
    log.push('act');
  });
  t.deepEqual(log.slice(0, 13), [...TAKEN, 'act', ...GIVEN]);
  await Promise.all(pending);
  t.true(log.indexOf('second act') > log.indexOf('one map 18'));
  const left = ['0x0..0x2000 rw ram0', '0x20000..0x21000 rw window'];
  for (const target of [...targets, late]) t.deepEqual(target.heldText(), left);
  t.false(
    log.filter((entry) => entry.endsWith(' 32')).some((entry) => entry !== 'one unmap 32' && entry !== 'one map 32'),
  );
});

test('unmaps several devices at once, also unmapped ones', async (t) => {
  const { memory, space, device, targets, log } = await stage(t);
  const other = new MemoryOfDevice(t, 'other device', 1, 0x70);
  const absent = new MemoryOfDevice(t, 'absent device', 1);
  const window = memory.newDeviceMemory({ name: 'window', length: PAGE });
  await window.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file: other.file, offset: 0n } });
  await window.mapToGuest(at(4));
  log.length = 0;
  await space.runWhileUnmapped([other.memory, device.memory], () => {
    for (const target of targets) t.deepEqual(target.heldText(), FULL.slice(0, 1));
  });
  for (const target of targets) t.is(target.held().length, 4);
  log.length = 0;
  await space.runWhileUnmapped([absent.memory], () => void log.push('act'));
  await space.retryDeviceMemory([absent.memory]);
  t.deepEqual(log, ['act']);
});

test('after guest memory is closed the operation runs, and nothing is mapped', async (t) => {
  const { memory, space, device, targets } = await stage(t);
  const closing = memory.close();
  let done = false;
  await space.runWhileUnmapped([device.memory], () => void (done = true));
  await closing;
  await space.retryDeviceMemory([device.memory]);
  t.true(done);
  for (const target of targets) t.deepEqual(target.held(), []);
});

test('nothing new is mapped to a removed target that has a quarantine', async (t) => {
  const { memory, space, device, targets, handles } = await stage(t);
  const [one, two] = targets;
  one.judge = ({ op, range }) => (op === 'unmap' && range.start === 0n ? new Error('stuck') : undefined);
  await rejectsCode(t, handles[0]?.remove() ?? Promise.resolve(), 'ERR_UNMAP_FAILED');
  await space.runWhileUnmapped([device.memory], () => void t.deepEqual(two.heldText(), FULL.slice(0, 1)));
  device.revoke();
  await space.retryDeviceMemory([device.memory]);
  t.deepEqual(one.heldText(), FULL.slice(0, 1));
  t.deepEqual(two.heldText(), FULL);
  one.closeWithMappings();
  await memory.dmaMappers.targetClosed(one);
});

test('maps only the missing memory when a device responds again', async (t) => {
  const { space, device, bar, targets, handles, log } = await stage(t, ['best-effort', 'best-effort', 'required']);
  const [one, two] = targets;
  one.judge = ({ op, range }) => (op === 'map' && range.start === at(16) ? new Error('off') : undefined);
  two.judge = ({ op, range }) => (op === 'map' && range.start === at(18) ? new Error('off') : undefined);
  await bar.mapToGuest(at(16));
  for (const target of [one, two])
    target.judge = ({ op, range }) => void log.push(`${target.name} ${op} ${range.start / PAGE}`);
  log.length = 0;
  await space.retryDeviceMemory([device.memory]);
  t.deepEqual(log, ['one map 16', 'two map 18']);
  device.revoke();
  log.length = 0;
  await space.retryDeviceMemory([device.memory]);
  t.deepEqual(log, ['one unmap 16', 'one map 16', 'one unmap 18', 'one map 18'], 'the target that reports it revoked');
  t.deepEqual(handles.map(states), [MAPPED, MAPPED, MAPPED]);
});

for (const policy of ['required', 'best-effort'] as const) {
  test(`maps the rest when one target refuses some of it; device memory is ${policy}`, async (t) => {
    const { space, device, targets, handles } = await stage(t, [policy]);
    const [one, two] = targets;
    await space
      .runWhileUnmapped([device.memory], () => {
        for (const target of [one, two]) target.judge = ({ op }) => (op === 'map' ? new Error('off') : undefined);
      })
      .catch(() => {});
    for (const handle of handles.slice(0, 2)) t.is(states(handle)[2], 'failed ERR_MAP_FAILED');
    one.judge = ({ op, range }) => (op === 'map' && range.start === at(8) ? new Error('off') : undefined);
    two.judge = ACCEPT;
    await space.retryDeviceMemory([device.memory]);
    t.deepEqual(handles.map(states), [['mapped', 'failed ERR_MAP_FAILED', 'mapped'], MAPPED, MAPPED]);
    one.judge = ACCEPT;
    await space.retryDeviceMemory([device.memory]);
    t.deepEqual(states(handles[0]), MAPPED);
  });
}

test('quarantines a revoked mapping that cannot be unmapped, and maps the rest', async (t) => {
  const { memory, space, device, targets, handles } = await stage(t);
  const [one] = targets;
  device.revoke();
  one.judge = ({ op, range }) => (op === 'unmap' && range.start === at(8) ? new Error('stuck') : undefined);
  await space.retryDeviceMemory([device.memory]);
  t.deepEqual(states(handles[0]), ['mapped', 'quarantined ERR_UNMAP_FAILED', 'mapped']);
  one.closeWithMappings();
  await memory.dmaMappers.targetClosed(one);
});
