// The results of explain(): the memory at an address, the regions that it hides, and why a target does or does not
// reach it.
import test from 'ava';
import { AddressRange, type MemorySnapshot } from '../../ts/index.ts';
import { explain } from '../../ts/inspect.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget, RefuseAt } from '../support/recording-target.ts';

/** A target that reports its mapping as revoked. */
class RevokingTarget extends RecordingTarget {
  revoked = false;

  isRevoked(): boolean {
    return this.revoked;
  }
}

test('explains memory that a target has mapped, with its backing', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'a+b', 8, 1);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(16, 8), priority: 3 });
  await region.addMapping({ range: pages(1, 4), backing: { file, offset: at(2) } });
  await region.mapToGuest();
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'A' }));
  const found = memory.explain(at(18) + 0x10n, 'A');
  t.deepEqual(found, {
    text: '0x12010 is offset 0x2010 of "r" (ram, priority 3), which shows a+b+0x3010, writable. A reaches it: it has mapped 0x11000..0x15000.',
    address: '0x12010',
    regions: [{ name: 'r', kind: 'ram', priority: 3, start: '0x10000', end: '0x18000', hasMemory: true }],
    memory: { start: '0x11000', end: '0x15000', region: 'r', kind: 'ram', writable: true, backing: 'a+b+0x3010' },
    targets: [{ target: 'A', state: 'mapped', start: '0x11000', end: '0x15000', writable: true }],
  });
});

test('explains hidden regions, and addresses that the VMM emulates', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(4), private: true }] });
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'A' }));
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(8) });
  await bar.mapToGuest(0n);
  const rom = await memory.regions.addRegion({ name: 'rom', range: pages(2, 1), priority: 500, kind: 'device' });
  const file = taggedFile(t, 'rom file', 1, 1);
  await rom.addMapping({ range: pages(0, 1), backing: { file, offset: 0n }, writable: false });
  await rom.mapToGuest();
  t.is(
    memory.explain(at(2)).text,
    '0x2000 is offset 0x0 of "rom" (device, priority 500), which shows rom file+0x0, read-only.' +
      ' It hides "ram0" (ram, priority 100), and "bar" (device, priority 0), without memory there.' +
      ' A reaches it, to read only: it has mapped 0x2000..0x3000.',
  );
  t.deepEqual(
    memory.explain(at(2)).regions.map(({ name, hiddenBy }) => [name, hiddenBy]),
    [
      ['rom', undefined],
      ['ram0', 'rom'],
      ['bar', 'rom'],
    ],
  );
  t.is(
    memory.explain(at(5)).text,
    '0x5000 is offset 0x5000 of "bar" (device, priority 0), which has no memory there: accesses exit to the VMM. ' +
      'A has nothing mapped there.',
  );
  t.is(memory.explain(at(5)).memory, undefined);
});

test('of equal priority the older region is visible', async (t) => {
  const memory = await guest(t);
  const regions = [];
  for (const name of ['younger is not', 'seen']) {
    regions.push(await memory.regions.addRegion({ name, range: pages(0, 2) }));
  }
  for (const region of regions.reverse()) {
    await region.addMapping({ range: pages(0, 2), backing: 'private' });
    await region.mapToGuest();
  }
  const { regions: layers, memory: seen } = memory.explain(0n);
  t.is(layers[0]?.name, seen?.region);
  t.is(seen?.backing, 'private');
});

test('names the nearest regions of an address without memory', async (t) => {
  const memory = await guest(t, {
    ram: [64, 0, 8, 2].map((page) => ({ start: at(page), length: PAGE, private: true })),
  });
  await memory.regions.addRegion({ name: 'idle', range: pages(4, 1) });
  t.is(
    memory.explain(at(4)).text,
    'Nothing is at 0x4000: no active region has it; "ram3" ends at 0x3000, "ram2" begins at 0x8000. Not active, so nowhere: "idle".',
  );
  t.is(memory.explain(1n << 40n).text, "0x10000000000 is beyond the guest's addresses, which have 32 bits.");
});

test('reports why a target does not reach device memory', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'bar-file', 4, 1);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(4) });
  await bar.addMapping({ range: AddressRange.of(0n, at(4)), backing: { file, offset: 0n } });
  const refusing = new RecordingTarget({ name: 'refusing' });
  const revoking = new RevokingTarget({ name: 'revoking' });
  await memory.dmaMappers.addDmaMapper(refusing);
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'off' }), { peerToPeer: 'off' });
  await memory.dmaMappers.addDmaMapper(revoking);
  refusing.judge = new RefuseAt('map', 0, new Error('no room')).judge;
  await bar.mapToGuest(at(1));
  revoking.revoked = true;
  const { targets } = memory.explain(at(1));
  t.deepEqual(
    targets.map(({ target, state, code }) => [target, state, code]),
    [
      ['refusing', 'failed', 'ERR_MAP_FAILED'],
      ['off', 'skipped', undefined],
      ['revoking', 'revoked', 'ERR_MAPPING_REVOKED'],
    ],
  );
  t.regex(
    memory.explain(at(2), 'refusing').text,
    /refusing does not reach it: it could not map 0x1000\.\.0x5000 \(ERR_MAP_FAILED\): .*no room\.$/,
  );
  t.regex(memory.explain(at(2), 'off').text, /off does not reach it: peer-to-peer is off for it\.$/);
  t.regex(
    memory.explain(at(2), 'revoking').text,
    /its mapping of 0x1000\.\.0x5000 is revoked \(ERR_MAPPING_REVOKED\): /,
  );
});

test('explains a range in quarantine, and memory that is not mapped since', async (t) => {
  const memory = await guest(t, { ram: [0, 2].map((page) => ({ start: at(page), length: PAGE, private: true })) });
  const target = new RecordingTarget({ name: 'A' });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  t.teardown(() => memory.dmaMappers.targetClosed(target));
  target.judge = new RefuseAt('unmap', 0).judge;
  await rejectsCode(t, handle.remove(), 'ERR_UNMAP_FAILED');
  const snapshot = memory.inspect();
  const kept = snapshot.quarantine[0]?.start ?? '';
  const other = kept === '0x0' ? at(2) : 0n;
  t.regex(
    memory.explain(BigInt(kept), 'A').text,
    /A may still reach what was there: it would not unmap .*ERR_UNMAP_FAILED/,
  );
  t.is(memory.explain(other, 'A').targets[0]?.state, 'absent');
  t.regex(memory.explain(other, 'A').text, /A does not reach it: the target was removed, but has quarantined mappings/);
});

test('a snapshot from JSON gives the same explanation as guest memory', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(4), private: true }] });
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'A' }));
  const snapshot = JSON.parse(JSON.stringify(memory.inspect())) as MemorySnapshot;
  for (const address of [0n, at(2), at(4), 1n << 33n]) {
    t.deepEqual(explain(snapshot, address), memory.explain(address));
  }
});

test('rejects malformed addresses and unknown targets', async (t) => {
  const memory = await guest(t);
  for (const address of [-1n, 1n << 64n, 0x1000 as unknown as bigint]) {
    throwsCode(t, () => memory.explain(address), 'ERR_INVALID_ARGUMENT');
  }
  t.regex(throwsCode(t, () => memory.explain(0n, 'B'), 'ERR_INVALID_ARGUMENT').message, /none has joined/);
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'A' }));
  t.regex(throwsCode(t, () => memory.explain(0n, 'B'), 'ERR_INVALID_ARGUMENT').message, /there are A/);
});
