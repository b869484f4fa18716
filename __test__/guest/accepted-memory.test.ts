// A target is called only for memory that it accepts. The rest is skipped, or an error if it is required.
import test, { type ExecutionContext } from 'ava';
import { AddressRange, type Backing, type DmaTarget, type GuestMemory } from '../../ts/index.ts';
import { SimulatedDevice } from '../../ts/testing.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget } from '../support/recording-target.ts';

function barBacking(t: ExecutionContext): Backing {
  const device = new SimulatedDevice({ bdf: '0000:41:00.0', bars: [{ index: 0, length: PAGE }] });
  t.teardown(() => device.close());
  const bar = device.regions[0];
  if (bar === undefined) throw new Error('the device has BAR 0');
  return bar.backing();
}

/** Guest memory with RAM of a file, a ROM, and windows of three kinds of memory. */
async function mixed(t: ExecutionContext): Promise<GuestMemory> {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const rom = await memory.regions.addRegion({ name: 'rom', range: pages(2, 1) });
  await rom.addMapping({ backing: { file: taggedFile(t, 'rom', 1, 1), offset: 0n }, writable: false });
  await rom.mapToGuest();
  const backings = {
    memfd: { file: taggedFile(t, 'memfd', 1, 1), offset: 0n },
    own: 'private',
    bar: barBacking(t),
  } as const;
  let page = 4;
  for (const [name, backing] of Object.entries(backings)) {
    const window = memory.newDeviceMemory({ name, length: PAGE });
    await window.addMapping({ range: AddressRange.of(0n, PAGE), backing });
    await window.mapToGuest(at(page));
    page += 4;
  }
  return memory;
}

const HELD = {
  ram: '0x0..0x1000 rw ram0',
  rom: '0x2000..0x3000 ro rom',
  memfd: '0x4000..0x5000 rw memfd',
  own: '0x8000..0x9000 rw own',
  bar: '0xc000..0xd000 rw bar',
};

const CASES: readonly [DmaTarget['accepts'], readonly string[]][] = [
  [undefined, [HELD.ram, HELD.rom, HELD.memfd, HELD.own, HELD.bar]],
  [{}, [HELD.ram, HELD.rom, HELD.memfd, HELD.own, HELD.bar]],
  [{ kinds: 'ram' }, [HELD.ram, HELD.rom]],
  [{ kinds: 'device' }, [HELD.memfd, HELD.own, HELD.bar]],
  [{ backing: 'file' }, [HELD.ram, HELD.rom, HELD.memfd, HELD.bar]],
  [{ backing: 'shareable' }, [HELD.ram, HELD.rom, HELD.memfd]],
  [{ readOnly: false }, [HELD.ram, HELD.memfd, HELD.own, HELD.bar]],
  [{ kinds: 'ram', backing: 'shareable', readOnly: false }, [HELD.ram]],
  [{ kinds: 'device', backing: 'shareable' }, [HELD.memfd]],
];

for (const [accepts, held] of CASES) {
  test(`calls a target only for memory that it accepts: ${JSON.stringify(accepts)}`, async (t) => {
    const memory = await mixed(t);
    const target = new RecordingTarget(accepts === undefined ? {} : { accepts });
    const handle = await memory.dmaMappers.addDmaMapper(target);
    t.deepEqual(target.heldText(), [...held]);
    for (const { region, state, reason } of handle.status()) {
      const isHeld = held.some((text) => text.endsWith(` ${region}`));
      t.is(state, isHeld ? 'mapped' : 'skipped');
      t.is(typeof reason, isHeld ? 'undefined' : 'string');
    }
    t.is((await handle.refresh()).length, held.includes(HELD.bar) ? 1 : 0);
    await handle.remove();
    t.deepEqual(target.held(), []);
    t.deepEqual(target.breaches, []);
  });
}

test('reports the code and the reason of memory that a target does not accept', async (t) => {
  const memory = await mixed(t);
  const target = new RecordingTarget({ name: 'disk', accepts: { backing: 'shareable' } });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const [, , , own, bar] = handle.status();
  t.like(own, { region: 'own', state: 'skipped', code: 'ERR_FILE_REQUIRED' });
  t.regex(own?.reason ?? '', /private memory$/);
  t.like(bar, { region: 'bar', state: 'skipped', code: 'ERR_FILE_REQUIRED' });
  t.regex(memory.explain(at(12), 'disk').text, /disk does not reach it: disk maps files that other processes can map/);
  const inspected = memory.inspect().targets[0]?.mappings[4];
  t.like(inspected, { state: 'skipped', code: 'ERR_FILE_REQUIRED' });
  t.is(inspected?.reason, bar?.reason);
});

test('skips RAM for a target of device memory, also RAM that is added later', async (t) => {
  const memory = await mixed(t);
  const target = new RecordingTarget({ accepts: { kinds: 'device' } });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'more', range: pages(20, 1) });
  await region.addMapping({ backing: 'private' });
  await region.mapToGuest();
  t.like(handle.status().at(-1), { region: 'more', state: 'skipped', reason: 'it accepts device memory only' });
  await region.remove();
  t.false(target.calls.some((call) => call.includes('0x14000')));
});

test('skips a ROM for a target that cannot map read-only memory, and maps it once it is writable', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ accepts: { readOnly: false } });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'rom', range: pages(0, 1) });
  await region.addMapping({ backing: { file: taggedFile(t, 'rom', 1, 1), offset: 0n } });
  await region.mapToGuest({ writable: false });
  t.like(handle.status()[0], { region: 'rom', state: 'skipped', reason: 'it cannot map read-only memory as such' });
  await region.unmapFromGuest();
  await region.mapToGuest();
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw rom']);
});

test('rejects a target of RAM only that requires device memory', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ name: 'ram only', accepts: { kinds: 'ram' } });
  const joining = memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
  t.regex((await rejectsCode(t, joining, 'ERR_INVALID_ARGUMENT')).message, /ram only: .* Use 'best-effort' or 'off'/);
  t.deepEqual(memory.inspect().targets, []);
  await memory.dmaMappers.addDmaMapper(target);
});

test('device memory that a target requires and does not accept is an error', async (t) => {
  const memory = await mixed(t);
  const target = new RecordingTarget({ accepts: { backing: 'shareable' } });
  const joining = memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'required' });
  await rejectsCode(t, joining, 'ERR_FILE_REQUIRED');
  t.deepEqual(target.calls, []);
});

test('RAM of a file that other processes cannot map is an error before it is faulted in', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget({ accepts: { backing: 'shareable' } });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 1) });
  await region.mapToGuest();
  await rejectsCode(t, region.addMapping({ backing: 'private' }), 'ERR_FILE_REQUIRED');
  const error = await rejectsCode(t, region.addMapping({ backing: barBacking(t) }), 'ERR_FILE_REQUIRED');
  t.regex(error.message, /files that other processes can map, and "r" at 0x0\.\.0x1000 is of .* of 0000:41:00.0/);
  t.deepEqual(target.calls, []);
});

for (const accepts of [0, 'ram', { kinds: 'rom' }, { backing: 'none' }, { backing: true }, { readOnly: 1 }]) {
  test(`rejects accepts of a target: ${JSON.stringify(accepts)}`, async (t) => {
    const memory = await guest(t);
    const target = Object.assign(new RecordingTarget(), { accepts });
    await rejectsCode(t, memory.dmaMappers.addDmaMapper(target as DmaTarget), 'ERR_INVALID_ARGUMENT');
  });
}
