/**
 * Mappings that their device has revoked. They are reported, and mapped again by the same change or by refresh().
 */
import test, { type ExecutionContext } from 'ava';
import {
  AddressRange,
  type DeviceMemory,
  type DmaMapperHandle,
  type GuestMemory,
  type PeerToPeer,
} from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { MemoryOfDevice, RevocableTarget } from '../support/device-file.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE } from '../support/pages.ts';
import { ACCEPT, RecordingTarget } from '../support/recording-target.ts';

interface Stage {
  readonly memory: GuestMemory;
  readonly device: MemoryOfDevice;
  /** Two pages of the device at page 8, with a page without memory between. */
  readonly bar: DeviceMemory;
  /** Reports revoked mappings. */
  readonly target: RevocableTarget;
  /** Maps by host address, and loses nothing. */
  readonly other: RecordingTarget;
  readonly iommu: SimulatedIommu;
  readonly handles: {
    readonly target: DmaMapperHandle;
    readonly other: DmaMapperHandle;
    readonly iommu: DmaMapperHandle;
  };
}

async function stage(t: ExecutionContext, peerToPeer: PeerToPeer = 'best-effort'): Promise<Stage> {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(2) }] });
  const device = new MemoryOfDevice(t, 'device', 4);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(3) });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file: device.file, offset: 0n } });
  await bar.addMapping({ range: AddressRange.of(at(2), PAGE), backing: { file: device.file, offset: at(2) } });
  await bar.mapToGuest(at(8));
  const target = new RevocableTarget({ name: 'target' });
  const other = new RecordingTarget({ name: 'other', needsVa: true });
  const iommu = new SimulatedIommu({ name: 'iommu', rules: 'iommufd' });
  const join = (one: typeof target | typeof other | typeof iommu) =>
    memory.dmaMappers.addDmaMapper(one, { peerToPeer });
  const handles = { target: await join(target), other: await join(other), iommu: await join(iommu) };
  for (const one of [target, other]) one.takeCalls();
  t.teardown(() => {
    const breaches = [...target.breaches, ...other.breaches];
    if (breaches.length > 0) throw new Error(breaches.join('; '));
  });
  return { memory, device, bar, target, other, iommu, handles };
}

function states(handle: DmaMapperHandle): string[] {
  return handle.status().map(({ state, code }) => (code === undefined ? state : `${state} ${code}`));
}

const VOID = 'failed ERR_MAPPING_REVOKED';
const ANEW = ['unmap 0x8000..0x9000', 'map 0x8000..0x9000 rw', 'unmap 0xa000..0xb000', 'map 0xa000..0xb000 rw'];

test('status and inspect report a revoked mapping with a remedy, and it stays mapped', async (t) => {
  const { memory, device, target, iommu, handles } = await stage(t);
  t.deepEqual(states(handles.target), ['mapped', 'mapped', 'mapped']);
  device.revoke();
  for (const handle of [handles.target, handles.iommu]) t.deepEqual(states(handle), ['mapped', VOID, VOID]);
  t.deepEqual(states(handles.other), ['mapped', 'mapped', 'mapped'], 'a target by host address keeps it');
  const [, told] = memory.inspect().targets[0]?.mappings ?? [];
  t.like(told, { state: 'failed', code: 'ERR_MAPPING_REVOKED', start: '0x8000', end: '0x9000', region: 'bar' });
  t.regex(told?.reason ?? '', /target.*"bar".*0x8000.*refresh\(\)/);
  t.is(target.held().length, 3);
  await t.throwsAsync(async () => iommu.read(at(8), 1), { code: 'ERR_DMA_FAULT' });
  t.deepEqual(target.calls, [], 'reading the status changes nothing');
});

test('a target that joins afterwards has a valid mapping', async (t) => {
  const { memory, device } = await stage(t);
  device.revoke();
  const late = new SimulatedIommu({ name: 'late', rules: 'iommufd' });
  const handle = await memory.dmaMappers.addDmaMapper(late);
  t.deepEqual(states(handle), ['mapped', 'mapped', 'mapped']);
  t.is(late.read(at(8), 1)[0], 0x40);
});

for (const policy of ['best-effort', 'required'] as const) {
  test(`the same change maps again only revoked mappings; device memory is ${policy}`, async (t) => {
    const { device, bar, target, other, iommu, handles } = await stage(t, policy);
    device.revoke();
    await bar.mapToGuest(at(8));
    t.deepEqual(target.takeCalls(), ANEW);
    t.deepEqual(other.takeCalls(), []);
    for (const handle of [handles.target, handles.iommu]) t.deepEqual(states(handle), ['mapped', 'mapped', 'mapped']);
    t.deepEqual(
      [8, 10].map((page) => iommu.read(at(page), 1)[0]),
      [0x40, 0x42],
    );
    await bar.mapToGuest(at(8));
    t.deepEqual(target.takeCalls(), [], 'once');
  });

  test(`the change ${policy === 'required' ? 'fails' : 'succeeds'} if a target fails to map it; a third maps it`, async (t) => {
    const { device, bar, target, handles } = await stage(t, policy);
    device.revoke();
    target.judge = ({ op }) => (op === 'map' ? new Error('not now') : undefined);
    if (policy === 'required') t.is((await rejectsCode(t, bar.mapToGuest(at(8)), 'ERR_MAP_FAILED')).target, 'target');
    else await bar.mapToGuest(at(8));
    const missed = 'failed ERR_MAP_FAILED';
    t.deepEqual(states(handles.target), ['mapped', missed, policy === 'required' ? VOID : missed]);
    target.judge = ACCEPT;
    target.takeCalls();
    await bar.mapToGuest(at(8));
    t.deepEqual(states(handles.target), ['mapped', 'mapped', 'mapped']);
    t.deepEqual(
      target.takeCalls(),
      policy === 'required' ? ANEW.slice(1) : ANEW.filter((call) => call.startsWith('map')),
      'it does not unmap missing mappings',
    );
  });
}

test('maps nothing again when peer-to-peer is off', async (t) => {
  const { device, bar, target, handles } = await stage(t, 'off');
  device.revoke();
  await bar.mapToGuest(at(8));
  t.deepEqual(await handles.target.refresh(), []);
  t.deepEqual(target.calls, []);
  t.deepEqual(states(handles.target), ['mapped', 'skipped', 'skipped']);
});

test('quarantines a revoked mapping that cannot be unmapped, and maps nothing over it', async (t) => {
  const { memory, device, bar, target, handles } = await stage(t, 'required');
  device.revoke();
  target.judge = ({ op, range }) => (op === 'unmap' && range.start === at(10) ? new Error('stuck') : undefined);
  const error = await rejectsCode(t, bar.mapToGuest(at(8)), 'ERR_UNMAP_FAILED');
  t.deepEqual([error.target, String(error.range)], ['target', '0xa000..0xb000']);
  t.deepEqual(states(handles.target), ['mapped', 'mapped', 'quarantined ERR_UNMAP_FAILED']);
  await rejectsCode(t, bar.mapToGuest(at(16)), 'ERR_RANGE_QUARANTINED');
  target.closeWithMappings();
  await memory.dmaMappers.targetClosed(target);
  await bar.mapToGuest(at(16));
});

test('a move that fails leaves a valid mapping at the old address', async (t) => {
  const { device, bar, target, other, iommu, handles } = await stage(t, 'required');
  device.revoke();
  other.judge = ({ op, range }) => (op === 'map' && range.start === at(18) ? new Error('no room') : undefined);
  t.is((await rejectsCode(t, bar.mapToGuest(at(16)), 'ERR_MAP_FAILED')).target, 'other');
  t.deepEqual(states(handles.target), ['mapped', 'mapped', 'mapped']);
  t.deepEqual(target.heldText(), ['0x0..0x2000 rw ram0', '0x8000..0x9000 rw bar', '0xa000..0xb000 rw bar']);
  t.is(iommu.read(at(10), 1)[0], 0x42);
});

test('moves the window of a disabled device if its memory may be skipped, or else rejects the move', async (t) => {
  for (const policy of ['best-effort', 'required'] as const) {
    const { device, bar, target, handles } = await stage(t, policy);
    device.decode(false);
    if (policy === 'required') {
      await rejectsCode(t, bar.mapToGuest(at(16)), 'ERR_MEMORY_FAULT');
      t.deepEqual(target.calls, [], 'nothing was unmapped for it');
      t.deepEqual(states(handles.iommu), ['mapped', VOID, VOID]);
    } else {
      await bar.mapToGuest(at(16));
      t.deepEqual(states(handles.iommu), ['mapped', 'failed ERR_MEMORY_FAULT', 'failed ERR_MEMORY_FAULT']);
    }
    device.decode(true);
    await bar.mapToGuest(at(16));
    t.deepEqual(states(handles.iommu), ['mapped', 'mapped', 'mapped']);
  }
});

test('refresh maps again all device memory that can be revoked, and returns the states before and after', async (t) => {
  const { device, target, other, iommu, handles } = await stage(t);
  const told = async (handle: DmaMapperHandle): Promise<string[]> =>
    (await handle.refresh()).map(({ range, region, before, state }) => `${range} ${region} ${before} ${state}`);
  const both = (before: string): string[] =>
    ['0x8000..0x9000', '0xa000..0xb000'].map((range) => `${range} bar ${before} mapped`);
  t.deepEqual(await told(handles.target), both('mapped'));
  t.deepEqual(target.takeCalls(), ANEW, 'even without a report that it was revoked');
  device.revoke();
  t.deepEqual(await told(handles.target), both('revoked'));
  t.deepEqual(target.takeCalls(), ANEW);
  t.deepEqual(states(handles.iommu), ['mapped', VOID, VOID], 'each target separately');
  t.deepEqual(await told(handles.iommu), both('revoked'));
  t.is(iommu.read(at(8), 1)[0], 0x40);
  t.deepEqual(await told(handles.other), both('mapped'));
  t.deepEqual(other.takeCalls(), [], 'mappings by host address cannot be revoked');
});

test('refresh maps missing memory', async (t) => {
  const { device, bar, target, other, handles } = await stage(t);
  device.decode(false);
  other.judge = ({ op }) => (op === 'map' ? new Error('not now') : undefined);
  await bar.mapToGuest(at(16));
  other.judge = ACCEPT;
  t.deepEqual(
    (await handles.other.refresh()).map((one) => `${one.before} ${one.state}`),
    ['failed mapped', 'failed mapped'],
    'although it cannot be revoked',
  );
  const before = await handles.iommu.refresh();
  t.deepEqual(
    before.map((one) => `${one.before} ${one.state} ${one.code}`),
    ['failed failed ERR_MEMORY_FAULT', 'failed failed ERR_MEMORY_FAULT'],
  );
  device.decode(true);
  const after = await handles.iommu.refresh();
  t.deepEqual(
    after.map((one) => `${one.before} ${one.state} ${one.code}`),
    ['failed mapped undefined', 'failed mapped undefined'],
  );
  t.deepEqual(target.heldText().slice(1), ['0x10000..0x11000 rw bar', '0x12000..0x13000 rw bar']);
});

for (const policy of ['best-effort', 'required'] as const) {
  test(`records a failed map of a refresh, and retries at the next: device memory is ${policy}`, async (t) => {
    const { target, handles } = await stage(t, policy);
    target.judge = ({ op, range }) => (op === 'map' && range.start === at(8) ? new Error('not now') : undefined);
    const found = await handles.target.refresh();
    t.deepEqual(
      found.map((one) => `${one.before} ${one.state} ${one.code}`),
      ['mapped failed ERR_MAP_FAILED', 'mapped mapped undefined'],
    );
    target.judge = ACCEPT;
    t.deepEqual(
      (await handles.target.refresh()).map((one) => `${one.before} ${one.state}`),
      ['failed mapped', 'mapped mapped'],
    );
  });
}

test('quarantines a failed unmap of a refresh, and reports it then and later', async (t) => {
  const { memory, bar, target, handles } = await stage(t, 'required');
  target.judge = ({ op, range }) => (op === 'unmap' && range.start === at(8) ? new Error('stuck') : undefined);
  const told = async (): Promise<string[]> =>
    (await handles.target.refresh()).map((one) => `${one.range} ${one.before} ${one.state}`);
  t.deepEqual(await told(), ['0x8000..0x9000 mapped quarantined', '0xa000..0xb000 mapped mapped']);
  target.judge = ACCEPT;
  t.deepEqual(await told(), ['0x8000..0x9000 quarantined quarantined', '0xa000..0xb000 mapped mapped']);
  await rejectsCode(t, bar.mapToGuest(at(16)), 'ERR_RANGE_QUARANTINED');
  target.closeWithMappings();
  await memory.dmaMappers.targetClosed(target);
});

test('a refresh takes its turn among changes, and does nothing for a removed target', async (t) => {
  const { memory, bar, target, handles } = await stage(t);
  const moved = bar.mapToGuest(at(16));
  const refreshed = handles.target.refresh();
  const back = bar.mapToGuest(at(8));
  await Promise.all([moved, refreshed, back]);
  t.deepEqual(
    (await refreshed).map(({ range }) => String(range)),
    ['0x10000..0x11000', '0x12000..0x13000'],
  );
  t.deepEqual(target.heldText().slice(1), ['0x8000..0x9000 rw bar', '0xa000..0xb000 rw bar']);
  const leaving = handles.target.remove();
  t.deepEqual(await handles.target.refresh(), []);
  await leaving;
  const last = handles.iommu.refresh();
  await memory.close();
  t.is((await last).length, 2);
  t.deepEqual(await handles.iommu.refresh(), []);
  t.deepEqual(target.held(), []);
});

test('does not refresh a removed target with a quarantine', async (t) => {
  const { memory, target, handles } = await stage(t);
  target.judge = ({ op, range }) => (op === 'unmap' && range.start === at(8) ? new Error('stuck') : undefined);
  await rejectsCode(t, handles.target.remove(), 'ERR_UNMAP_FAILED');
  target.takeCalls();
  t.deepEqual(await handles.target.refresh(), []);
  t.deepEqual(target.calls, []);
  target.closeWithMappings();
  await memory.dmaMappers.targetClosed(target);
});

test('a refresh does not touch RAM', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: at(2) },
      { start: at(4), length: PAGE, private: true },
    ],
  });
  const target = new RevocableTarget();
  const handle = await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(states(handle), ['mapped', 'mapped']);
  target.takeCalls();
  t.deepEqual(await handle.refresh(), []);
  t.deepEqual(target.calls, []);
});
