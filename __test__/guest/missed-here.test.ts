// Device memory that this process cannot map is skipped if the policy of every target that needs it here permits that.
import { closeSync, openSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { AddressRange, type DeviceMemory, type GuestMemory, MemoryFile } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { VaMapper } from '../../ts/memory/va-mapper.ts';
import { rejectsCode } from '../support/errors.ts';
import { interposeNative, outOfMemory } from '../support/native-faults.ts';
import { at, guest, PAGE, pages } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';
import { scratchFolder } from '../support/scratch.ts';

/** The native call that fails if it affects pages 4 to 15. */
let failing: string | undefined;
/** The native calls that affect them. */
let calls: string[] = [];
interposeNative((op, [first]) => {
  const words = first instanceof BigUint64Array ? [...first] : [first]; // pairs of start and length, or a start
  if (!words.some((word, n) => n % 2 === 0 && typeof word === 'bigint' && pages(4, 12).contains(word))) return;
  calls.push(op);
  if (op === failing) throw outOfMemory(op);
});

test.beforeEach(() => {
  failing = undefined;
  calls = [];
});

async function newBar(memory: GuestMemory, backing: 'file' | 'private' = 'file'): Promise<DeviceMemory> {
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  using file = MemoryFile.create(PAGE, { name: 'bar file' });
  await bar.addMapping({
    range: AddressRange.of(0n, PAGE),
    backing: backing === 'file' ? { file, offset: 0n } : 'private',
  });
  return bar;
}

const withRam = (t: ExecutionContext): Promise<GuestMemory> => guest(t, { ram: [{ start: 0n, length: PAGE }] });

const FAULTS = [
  ['mapFile', 'file'],
  ['mapPrivate', 'private'],
  ['ensureMapped', 'private'],
  ['lease', 'file'],
] as const;

for (const [op, backing] of FAULTS) {
  const what = `${op} of a BAR of ${backing === 'file' ? 'a file' : 'private memory'}`;
  test.serial(`best-effort: a change continues without a BAR, and the next one retries: ${what}`, async (t) => {
    const memory = await withRam(t);
    const handle = await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'A' }));
    const bar = await newBar(memory, backing);
    failing = op;
    await bar.mapToGuest(at(4));
    const missed = handle.status()[1];
    t.like(missed, { state: 'failed', code: 'ERR_SYSTEM', errno: 'ENOMEM' });
    t.regex(missed?.reason ?? '', new RegExp(`^A: cannot map "bar" at 0x4000\\.\\.0x5000: .*injected: ${op}`));
    await bar.mapToGuest(at(4));
    t.is(handle.status()[1]?.state, 'failed', 'the cause is still there');

    failing = undefined;
    await bar.mapToGuest(at(4));
    t.is(handle.status()[1]?.state, 'mapped');
    await bar.mapToGuest(at(8));
    t.is(handle.status()[1]?.state, 'mapped');
  });

  test.serial(`best-effort: a target joins without a BAR, and the next change retries: ${what}`, async (t) => {
    const memory = await withRam(t);
    const bar = await newBar(memory, backing);
    await bar.mapToGuest(at(4));
    failing = op;
    const handle = await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'A' }));
    const states = (): string[] => handle.status().map(({ state }) => state);
    t.deepEqual(states(), ['mapped', 'failed']);
    failing = undefined;
    await bar.mapToGuest(at(4));
    t.deepEqual(states(), ['mapped', 'mapped']);
  });

  test.serial(`required: a change and a registration fail, and leave nothing: ${what}`, async (t) => {
    const memory = await withRam(t);
    const handle = await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'lenient' }));
    const strict = await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'strict' }), {
      peerToPeer: 'required',
    });
    const bar = await newBar(memory, backing);
    failing = op;
    const before = memory.inspect();
    await rejectsCode(t, bar.mapToGuest(at(4)), 'ERR_SYSTEM');
    t.deepEqual(memory.inspect(), before);
    await strict.remove();
    await bar.mapToGuest(at(4));
    t.is(handle.status()[1]?.state, 'failed');
    const late = new SimulatedIommu({ name: 'late' });
    await rejectsCode(t, memory.dmaMappers.addDmaMapper(late, { peerToPeer: 'required' }), 'ERR_SYSTEM');
    t.deepEqual(late.mappings(), []);
    failing = undefined;
    await memory.dmaMappers.addDmaMapper(late, { peerToPeer: 'required' });
    t.is(late.mappings().length, 2);
  });
}

test.serial(
  'off: device memory is not mapped in this process, when a BAR is placed and when a target joins',
  async (t) => {
    const memory = await withRam(t);
    const join = (name: string) => memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name }), { peerToPeer: 'off' });
    const [first, bar] = [await join('first'), await newBar(memory)];
    await bar.mapToGuest(at(4));
    const second = await join('second');
    await bar.mapToGuest(at(8));
    t.deepEqual(calls, []);
    for (const handle of [first, second]) t.is(handle.status()[1]?.state, 'skipped');
    await bar.unmapFromGuest();
    const handle = await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'third' }));
    await bar.mapToGuest(at(4));
    t.is(handle.status()[1]?.state, 'mapped', 'others reach it');
  },
);

for (const peerToPeer of ['best-effort', 'off'] as const) {
  test.serial(`${peerToPeer}: a BAR moves although a file cannot be mapped for writing`, async (t) => {
    const path = join(scratchFolder(t), 'read-only');
    writeFileSync(path, '');
    truncateSync(path, Number(PAGE));
    const fd = openSync(path, 'r');
    using file = MemoryFile.fromFd(fd);
    closeSync(fd);
    const memory = await withRam(t);
    const handle = await memory.dmaMappers.addDmaMapper(new SimulatedIommu({ name: 'A' }), { peerToPeer });
    const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
    await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file, offset: 0n } });
    for (const page of [4, 8]) {
      await bar.mapToGuest(at(page));
      t.like(handle.status()[1], peerToPeer === 'off' ? { state: 'skipped' } : { state: 'failed', errno: 'EACCES' });
    }
    await bar.unmapFromGuest();
    t.is(handle.status().length, 1);
  });
}

test.serial('best-effort: private device memory is recorded as failed when no address space is left', async (t) => {
  const taken: VaMapper[] = [];
  t.teardown(() => Promise.all(taken.map((va) => va.close())));
  try {
    for (;;) taken.push(new VaMapper(45));
  } catch {
    // The address space is used up.
  }
  const memory = await guest(t, { addressWidth: 45 });
  const target = new RecordingTarget({ name: 'A', needsVa: 'private' });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const bar = await newBar(memory, 'private');
  await bar.mapToGuest(at(4));
  t.like(handle.status()[0], { state: 'failed', code: 'ERR_ADDRESS_SPACE_LIMIT', errno: 'ENOMEM' });
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'B', needsVa: 'private' }));
  const region = await memory.regions.addRegion({ name: 'ram', range: pages(0, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await rejectsCode(t, region.mapToGuest(), 'ERR_ADDRESS_SPACE_LIMIT');
  await Promise.all(taken.splice(0).map((va) => va.close()));
  await bar.mapToGuest(at(4));
  t.is(handle.status()[0]?.state, 'mapped');
});
