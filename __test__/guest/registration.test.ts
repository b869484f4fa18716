// The calls that a target receives when it joins guest memory and when it leaves.
import test from 'ava';
import { fstatSync } from 'node:fs';
import { AddressRange, MemoryFile, PeerDmaError } from '../../ts/index.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { ACCEPT, BatchRecordingTarget, RecordingTarget, RefuseAt } from '../support/recording-target.ts';
import { largestUntouchable } from '../support/reserved.ts';

test('replay on registration maps all active sub-mappings in address order', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: at(16), length: at(4) },
      { start: at(0), length: at(2) },
    ],
  });
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(2) });
  await bar.addMapping({ range: AddressRange.of(PAGE, PAGE), backing: 'private', writable: false });
  await bar.mapToGuest(at(8));

  for (const target of [new RecordingTarget(), new RecordingTarget({ needsVa: true, async: true })]) {
    await memory.dmaMappers.addDmaMapper(target);
    t.deepEqual(target.calls, ['map 0x0..0x2000 rw', 'map 0x9000..0xa000 ro', 'map 0x10000..0x14000 rw']);
  }
  const batching = new BatchRecordingTarget();
  await memory.dmaMappers.addDmaMapper(batching, { peerToPeer: 'required' });
  t.is(batching.calls[0], 'batch of 3');
  t.deepEqual(batching.heldText(), ['0x0..0x2000 rw ram1', '0x9000..0xa000 ro bar', '0x10000..0x14000 rw ram0']);
});

test('a request carries range, backing, writability, kind and the name of the region', async (t) => {
  const memory = await guest(t);
  const file = taggedFile(t, 'file', 4, 1);
  const region = await memory.regions.addRegion({ name: 'rom', range: pages(4, 4), kind: 'device' });
  await region.addMapping({ range: pages(1, 2), backing: { file, offset: PAGE }, writable: false });
  await region.mapToGuest();
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(target.held(), [
    { range: pages(5, 2), backing: { file, offset: PAGE }, writable: false, kind: 'device', name: 'rom' },
  ]);
});

test('nothing is replayed for inactive regions', async (t) => {
  const memory = await guest(t);
  const region = await memory.regions.addRegion({ name: 'idle', range: pages(0, 2) });
  await region.addMapping({ range: pages(0, 2), backing: 'private' });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  const target = new RecordingTarget();
  const handle = await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(target.calls, []);
  t.deepEqual(handle.status(), []);
});

test('removing a mapper unmaps everything, and nothing is mapped to it afterwards', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: at(0), length: at(2) },
      { start: at(4), length: at(2) },
    ],
  });
  const target = new RecordingTarget({ needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  target.takeCalls();
  await handle.remove();
  t.deepEqual(target.takeCalls().sort(), ['unmap 0x0..0x2000', 'unmap 0x4000..0x6000']);
  t.deepEqual(target.breaches, []);
  t.deepEqual(memory.inspect().targets, []);
  t.deepEqual(handle.status(), []);

  const region = await memory.regions.addRegion({ name: 'later', range: pages(8, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await region.mapToGuest();
  await handle.remove();
  t.deepEqual(target.calls, []);
});

test('a target that was removed can be registered again', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: at(2) }] });
  const target = new RecordingTarget({ needsVa: true });
  await (await memory.dmaMappers.addDmaMapper(target)).remove();
  await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(target.heldText(), ['0x0..0x2000 rw ram0']);
  t.deepEqual(target.breaches, []);
});

test('rejects a target that is registered already', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const error = await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_INVALID_ARGUMENT');
  t.is(error.target, 'recorder');
  t.deepEqual(target.calls, ['map 0x0..0x1000 rw']);
});

for (const Target of [RecordingTarget, BatchRecordingTarget]) {
  for (const [async, needsVa] of [
    [false, true],
    [true, true],
    [false, 'private'],
    [true, 'private'],
  ] as const) {
    const what = needsVa === 'private' ? ', host memory of private memory alone' : '';
    const how = `${Target === BatchRecordingTarget ? 'in a batch' : 'one by one'}, ${async ? 'rejecting' : 'throwing'}${what}`;
    test(`a failing registration leaves nothing in the target: ${how}`, async (t) => {
      const count = 5;
      const ram = Array.from({ length: count }, (_, index) => ({
        start: at(index * 4),
        length: at(2),
        private: index % 2 === 1,
      }));
      const memory = await guest(t, { ram });
      const before = memory.inspect();
      for (let k = 0; k < count; k++) {
        const target = new Target({ name: 'picky', needsVa, async });
        const refusal = new RefuseAt('map', k);
        target.judge = refusal.judge;
        const error = await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_MAP_FAILED', `k = ${k}`);
        t.true(refusal.hit);
        t.is(error.target, 'picky');
        t.true(error.range instanceof AddressRange);
        t.deepEqual(target.held(), [], `k = ${k}`);
        t.deepEqual(target.breaches, []);
        t.deepEqual(memory.inspect(), before);

        target.judge = ACCEPT;
        const handle = await memory.dmaMappers.addDmaMapper(target);
        t.is(target.held().length, count);
        await handle.remove();
        t.deepEqual(target.breaches, []);
      }
    });
  }
}

test('a failing registration one by one names the range and the cause', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE },
      { start: at(4), length: PAGE },
    ],
  });
  const target = new RecordingTarget({ name: 'picky' });
  const cause = new PeerDmaError('ERR_MEMLOCK_LIMIT', 'too much', { errno: 'ENOMEM', syscall: 'ioctl(MAP)' });
  target.judge = new RefuseAt('map', 1, cause).judge;
  const error = await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_MEMLOCK_LIMIT');
  t.is(error.errno, 'ENOMEM');
  t.is(error.syscall, 'ioctl(MAP)');
  t.is(error.target, 'picky');
  t.deepEqual(error.range, pages(4, 1));
  t.is(error.cause, cause);
  t.regex(error.message, /picky.*"ram1".*0x4000\.\.0x5000.*too much/);
});

test('reports a target that throws a value other than an error', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const target = new RecordingTarget();
  target.judge = new RefuseAt('map', 0, 'just a string').judge;
  const error = await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_MAP_FAILED');
  t.regex(error.message, /just a string/);
});

test('a target that needs a file rejects private memory at registration', async (t) => {
  const memory = await guest(t, {
    ram: [
      { start: 0n, length: PAGE },
      { start: at(4), length: PAGE, private: true },
    ],
  });
  const target = new RecordingTarget({ name: 'filer', accepts: { backing: 'file' } });
  const error = await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_FILE_REQUIRED');
  t.is(error.target, 'filer');
  t.deepEqual(error.range, pages(4, 1));
  t.deepEqual(target.held(), []);
  t.deepEqual(memory.inspect().targets, []);
});

test('a target that needs a file rejects private memory at add', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  const other = new RecordingTarget({ name: 'other' });
  await memory.dmaMappers.addDmaMapper(other);
  const target = new RecordingTarget({ name: 'filer', accepts: { backing: 'file' } });
  await memory.dmaMappers.addDmaMapper(target);
  const region = await memory.regions.addRegion({ name: 'more', range: pages(4, 2) });
  await region.mapToGuest();
  const before = memory.inspect();

  const adding = region.addMapping({ range: pages(0, 1), backing: 'private' });
  t.is((await rejectsCode(t, adding, 'ERR_FILE_REQUIRED')).target, 'filer');
  t.deepEqual(memory.inspect(), before);
  t.deepEqual(other.heldText(), ['0x0..0x1000 rw ram0']);
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0']);

  const file = taggedFile(t, 'file', 1, 1);
  await region.addMapping({ range: pages(0, 1), backing: { file, offset: 0n } });
  t.deepEqual(target.heldText(), ['0x0..0x1000 rw ram0', '0x4000..0x5000 rw more']);
});

test('a target without needsVa receives no host memory, and no address space is reserved for it', async (t) => {
  const width = 45; // so wide that nothing else in this process is as large
  const size = 1n << BigInt(width);
  const memory = await guest(t, { addressWidth: width, ram: [{ start: size - PAGE, length: PAGE }] });
  const plain = new RecordingTarget({ name: 'plain' });
  await memory.dmaMappers.addDmaMapper(plain);
  t.is(plain.held()[0]?.hostMemory, undefined);
  t.true(largestUntouchable() < size - PAGE);

  const mapper = new RecordingTarget({ name: 'mapper', needsVa: true });
  await memory.dmaMappers.addDmaMapper(mapper);
  t.deepEqual(mapper.heldText(), ['0x1ffffffff000..0x200000000000 rw ram0']);
  t.is(mapper.held()[0]?.hostMemory?.length, PAGE);
  t.true(largestUntouchable() >= size - PAGE);
  t.is(plain.held()[0]?.hostMemory, undefined);
});

test('memory is faulted in before a target that needs host memory is called, also at a change', async (t) => {
  const [low, high, added] = ['low', 'high', 'added'].map((name) => MemoryFile.create(at(3), { name }));
  if (low === undefined || high === undefined || added === undefined) throw new Error('three were made');
  const ram = [
    { start: 0n, length: at(3), file: low },
    { start: at(8), length: at(3), file: high },
  ];
  const memory = await guest(t, { ram });
  const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 3) });
  await region.mapToGuest();
  const present: bigint[] = [];
  const target = new RecordingTarget({ needsVa: true });
  target.judge = ({ request }) => {
    const backing = request?.backing;
    if (typeof backing === 'object') present.push(BigInt(fstatSync(backing.file.fd).blocks) * 512n);
    return undefined;
  };
  await memory.dmaMappers.addDmaMapper(target);
  await region.addMapping({ range: pages(0, 3), backing: { file: added, offset: 0n } });
  t.deepEqual(present, [at(3), at(3), at(3)]);
  target.judge = ACCEPT;
  for (const file of [low, high, added]) file.close();
});

test('host memory is revoked once the range is unmapped', async (t) => {
  const memory = await guest(t, { ram: [{ start: 0n, length: PAGE }] });
  memory.write(8n, Uint8Array.of(1, 2, 3));
  const target = new RecordingTarget({ needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const host = target.held()[0]?.hostMemory;
  t.deepEqual(host?.read(8n, 3), Uint8Array.of(1, 2, 3));
  host?.write(9n, Uint8Array.of(7));
  t.deepEqual(memory.read(8n, 3), Uint8Array.of(1, 7, 3));
  throwsCode(t, () => host?.read(PAGE, 1), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => host?.read((1n << 64n) - 1n, 2), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => host?.read(1n << 64n, 1), 'ERR_OUT_OF_RANGE');
  throwsCode(t, () => host?.read(-1n, 1), 'ERR_INVALID_ARGUMENT');
  await handle.remove();
  throwsCode(t, () => host?.read(0n, 1), 'ERR_CLOSED');
  throwsCode(t, () => host?.write(0n, Uint8Array.of(1)), 'ERR_CLOSED');
});

test('replays in order of address, device memory one by one, and rolls back from the end', async (t) => {
  const memory = await guest(t, { ram: [0, 2, 16, 18].map((page) => ({ start: at(page), length: PAGE })) });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await bar.mapToGuest(at(8));
  const target = new BatchRecordingTarget({ needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const ranges = [0, 2, 8, 16, 18].map((page) => String(pages(page, 1)));
  const maps = ranges.map((range) => `map ${range} rw`);
  t.deepEqual(target.takeCalls(), ['batch of 2', ...maps.slice(0, 3), 'batch of 2', ...maps.slice(3)]);
  await handle.remove();
  t.deepEqual(
    target.takeCalls(),
    ranges.toReversed().map((range) => `unmap ${range}`),
  );
});
