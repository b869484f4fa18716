// A failed change has changed nothing: regions, flat map, every target.
import test, { type ExecutionContext } from 'ava';
import { AddressRange, GuestMemory, type Region } from '../../ts/index.ts';
import { SimulatedIommu } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { ACCEPT, BatchRecordingTarget, RecordingTarget, RefuseAt } from '../support/recording-target.ts';

test('a failed map is unmapped from the targets that already mapped it, then from the host address', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 1, 0x44);
  const first = new RecordingTarget({ name: 'first', needsVa: true });
  const second = new RecordingTarget({ name: 'second', needsVa: true });
  await memory.dmaMappers.addDmaMapper(first);
  await memory.dmaMappers.addDmaMapper(second);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 2) });
  await region.mapToGuest();
  const before = memory.inspect();

  const seen: (number | undefined)[] = [];
  first.judge = ({ op, request }) => {
    if (op === 'unmap') seen.push(request?.hostMemory?.read(0n, 1)[0]);
    return undefined;
  };
  second.judge = new RefuseAt('map', 0).judge;
  const mapping = { range: pages(0, 1), backing: { file, offset: 0n } };
  t.is((await rejectsCode(t, region.addMapping(mapping), 'ERR_MAP_FAILED')).target, 'second');
  t.deepEqual(first.takeCalls(), ['map 0x0..0x1000 rw', 'unmap 0x0..0x1000']);
  t.deepEqual(second.takeCalls(), ['map 0x0..0x1000 rw refused']);
  t.deepEqual(seen, [0x44], 'the memory was there until the target unmapped it');
  t.deepEqual(memory.inspect(), before);

  await region.addMapping(mapping); // the host address is free again
  t.deepEqual(first.heldText(), ['0x0..0x1000 rw r']);
  t.deepEqual(second.heldText(), ['0x0..0x1000 rw r']);
});

test('a failed change can be repeated and then maps', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 2) });
  await region.addMapping({ range: pages(0, 2), backing: 'private' });
  target.judge = () => new Error('no');
  await rejectsCode(t, region.mapToGuest(), 'ERR_MAP_FAILED');
  await rejectsCode(t, region.mapToGuest(), 'ERR_MAP_FAILED');
  t.false(memory.inspect().regions[0]?.active);
  target.judge = ACCEPT;
  await region.mapToGuest();
  t.deepEqual(target.heldText(), ['0x0..0x2000 rw r']);
  t.true(memory.inspect().regions[0]?.active);
});

interface Scene {
  readonly memory: GuestMemory;
  readonly ram: Region;
  readonly targets: readonly RecordingTarget[];
  readonly iommus: readonly SimulatedIommu[];
  readonly changes: Readonly<Record<string, () => Promise<unknown>>>;
}

/** Four recording targets of different kinds and two simulated IOMMUs. Their memory is cut and overlaid. */
async function scene(t: ExecutionContext): Promise<Scene> {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 8, 0x10);
  const ram = await memory.regions.addRegion({ name: 'ram', range: pages(0, 8) });
  await ram.addMapping({ range: pages(0, 4), backing: { file, offset: 0n } });
  await ram.addMapping({ range: pages(4, 4), backing: 'private' });
  await ram.mapToGuest();
  for (let page = 4; page < 8; page++) memory.write(at(page), Uint8Array.of(0x40 + page));
  const above = await memory.regions.addRegion({ name: 'above', range: pages(2, 4), priority: 200 });
  await above.addMapping({ range: pages(0, 1), backing: { file, offset: at(6) }, writable: false });
  await above.addMapping({ range: pages(2, 1), backing: { file, offset: at(7) } });
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(4) });
  await bar.addMapping({ range: AddressRange.of(0n, at(2)), backing: { file, offset: at(4) } });
  await bar.addMapping({ range: AddressRange.of(at(3), PAGE), backing: 'private' });
  await bar.mapToGuest(at(6)); // half of it below RAM
  const targets = [
    new RecordingTarget({ name: 'plain' }),
    new BatchRecordingTarget({ name: 'batching', needsVa: true }),
    new RecordingTarget({ name: 'async', needsVa: true, async: true }),
    new BatchRecordingTarget({ name: 'by file', needsVa: 'private', async: true }),
  ];
  for (const target of targets) await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
  const iommus = (['type1v2', 'iommufd'] as const).map((rules) => new SimulatedIommu({ name: rules, rules }));
  for (const iommu of iommus) await memory.dmaMappers.addDmaMapper(iommu, { peerToPeer: 'required' });
  const changes = {
    'a region that is mapped above': () => above.mapToGuest(),
    'a region that is unmapped': () => ram.unmapFromGuest(),
    'a region that is removed': () => ram.remove(),
    'a region that becomes read-only': () => ram.mapToGuest({ writable: false }),
    'a BAR that moves': () => bar.mapToGuest(at(7)),
    'a mapping that replaces two': () => ram.addMapping({ range: pages(3, 2), backing: 'private' }),
    'a mapping that is cut': () => ram.removeMappings(pages(5, 1)),
    'a BAR that is unmapped': () => bar.unmapFromGuest(),
  };
  return { memory, ram, targets, iommus, changes };
}

/** The visible state, including the bytes that a device reads. */
function everything({ memory, targets, iommus }: Scene): unknown {
  return {
    snapshot: memory.inspect(),
    held: targets.map((target) => target.heldText()),
    dma: iommus.map((iommu) =>
      iommu.mappings().map(({ range, region }) => {
        const bytes: number[] = [];
        for (let iova = range.start; iova < range.end; iova += PAGE) bytes.push(...iommu.read(iova, 1));
        return { range: String(range), region, bytes };
      }),
    ),
  };
}

for (const name of [
  'a region that is mapped above',
  'a region that becomes read-only',
  'a BAR that moves',
  'a mapping that replaces two',
  'a mapping that is cut',
]) {
  test(`if any map call of a change fails, everything is as before, and a repetition succeeds: ${name}`, async (t) => {
    const reached = new Set<string>();
    for (let target = 0; target < 4; target++) {
      for (let k = 0; ; k++) {
        const stage = await scene(t);
        const before = everything(stage);
        const picky = stage.targets[target];
        const change = stage.changes[name];
        if (picky === undefined || change === undefined) throw new Error('the scene has four targets and that change');
        const refusal = new RefuseAt('map', k);
        picky.judge = refusal.judge;
        const outcome = await change().then(
          () => 'done',
          () => 'failed',
        );
        if (!refusal.hit) {
          t.is(outcome, 'done');
          await stage.memory.close();
          break; // there are no more calls
        }
        reached.add(`${picky.name}`);
        t.is(outcome, 'failed', `${picky.name}, call ${k}`);
        t.deepEqual(everything(stage), before, `${picky.name}, call ${k}`);
        picky.judge = ACCEPT;
        await change();
        t.deepEqual(
          stage.targets.flatMap(({ breaches }) => breaches),
          [],
        );
        const held = stage.targets.map((one) => one.heldText());
        for (const one of held) t.deepEqual(one, held[0]);
        t.notDeepEqual(everything(stage), before);
        await stage.memory.close();
      }
    }
    t.deepEqual([...reached], ['plain', 'batching', 'async', 'by file']);
  });
}

test('a failed replacement by private memory keeps the old memory', async (t) => {
  const memory = await guest(t);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
  await region.addMapping({ range: pages(0, 4), backing: 'private' });
  await region.mapToGuest();
  const target = new RecordingTarget({ needsVa: true });
  await memory.dmaMappers.addDmaMapper(target);
  memory.write(at(1), Uint8Array.of(0x21, 0x22));
  target.judge = new RefuseAt('map', 1).judge;
  await rejectsCode(t, region.addMapping({ range: pages(1, 1), backing: 'private' }), 'ERR_MAP_FAILED');
  t.deepEqual(memory.read(at(1), 2), Uint8Array.of(0x21, 0x22));
  t.deepEqual(target.held()[0]?.hostMemory?.read(PAGE, 2), Uint8Array.of(0x21, 0x22));
});

test('when the rollback fails too, the error reports both, and status is true', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 2, 0x44);
  const first = new RecordingTarget({ name: 'first', needsVa: true });
  const second = new RecordingTarget({ name: 'second', needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(first);
  await memory.dmaMappers.addDmaMapper(second);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 2) });
  await region.mapToGuest();
  first.judge = new RefuseAt('unmap', 0, new Error('stuck')).judge;
  second.judge = new RefuseAt('map', 0, new Error('no room')).judge;

  const mapping = { range: pages(0, 1), backing: { file, offset: 0n } };
  const error = await rejectsCode(t, region.addMapping(mapping), 'ERR_ROLLBACK_FAILED');
  t.is(error.target, 'second');
  t.regex(error.message, /no room/);
  t.regex(error.message, /stuck/);
  t.deepEqual(memory.inspect().flat, []);
  t.like(handle.status()[0], { state: 'quarantined', region: 'r' });
  t.deepEqual(first.held()[0]?.hostMemory?.read(0n, 1), Uint8Array.of(0x44), 'memory that it may still reach is kept');
  await rejectsCode(t, region.addMapping(mapping), 'ERR_RANGE_QUARANTINED');

  await memory.dmaMappers.targetClosed(first);
  await region.addMapping(mapping);
  t.deepEqual(second.heldText(), ['0x0..0x1000 rw r']);
});

test('quarantines memory that a target may reach if a replacement can be neither made nor rolled back', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 2, 0x50);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 1) });
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  await region.mapToGuest();
  const first = new RecordingTarget({ name: 'first', needsVa: true });
  const second = new RecordingTarget({ name: 'second', needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(first);
  await memory.dmaMappers.addDmaMapper(second);
  // The new mapping succeeds on the first target and fails on the second; the first fails to unmap it.
  first.judge = new RefuseAt('unmap', 1, new Error('stuck')).judge;
  second.judge = new RefuseAt('map', 0, new Error('no room')).judge;
  const replacing = region.addMapping({ range: pages(0, 1), backing: { file, offset: PAGE } });
  await rejectsCode(t, replacing, 'ERR_ROLLBACK_FAILED');

  t.deepEqual(first.breaches, [], 'nothing is mapped over memory that could not be unmapped');
  t.deepEqual(
    handle.status().map(({ state }) => state),
    ['failed', 'quarantined'],
    'one is the memory of the map there, the other the kept memory',
  );
  t.is(memory.inspect().quarantine.length, 1);
  t.deepEqual(first.held()[0]?.hostMemory?.read(0n, 1), Uint8Array.of(0x51), 'the memory it may reach is kept');
  const restored = second.held()[0]?.hostMemory?.read(0n, 1)[0];
  t.true(restored === undefined || restored === 0x50, 'the other target never receives other memory than requested');
  await memory.dmaMappers.targetClosed(first);
  t.deepEqual(memory.inspect().quarantine, []);
  t.deepEqual(second.heldText(), ['0x0..0x1000 rw r'], 'the blocked memory is restored');
  t.deepEqual(second.held()[0]?.hostMemory?.read(0n, 1), Uint8Array.of(0x50));
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: PAGE } });
  t.deepEqual(second.held()[0]?.hostMemory?.read(0n, 1), Uint8Array.of(0x51));
  t.deepEqual(second.breaches, []);
});
