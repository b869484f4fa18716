// Observation: inspect() and the diagnostics channels.
import test from 'ava';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { AddressRange, type DmaEvent, type MemoryChangeEvent, type MemorySettledEvent } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages, taggedFile } from '../support/pages.ts';
import { RecordingTarget, RefuseAt } from '../support/recording-target.ts';

test('inspect is plain data that JSON can represent', async (t) => {
  const memory = await guest(t, { ram: [{ start: at(2), length: PAGE, private: true }] });
  const file = taggedFile(t, 'bar-file', 4, 1);
  const bar = memory.newDeviceMemory({ name: 'bar', length: at(4) });
  await bar.addMapping({ range: AddressRange.of(PAGE, at(2)), backing: { file, offset: PAGE }, writable: false });
  await bar.mapToGuest(at(1));
  await memory.regions.addRegion({ name: 'idle', range: pages(32, 4), kind: 'device', priority: 7 });
  await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'one' }), { peerToPeer: 'off' });

  const snapshot = memory.inspect();
  t.deepEqual(JSON.parse(JSON.stringify(snapshot)), snapshot);
  t.deepEqual(snapshot, {
    addressWidth: 32,
    regions: [
      {
        id: 0,
        name: 'ram0',
        kind: 'ram',
        priority: 100,
        length: '0x1000',
        active: true,
        range: { start: '0x2000', end: '0x3000' },
        writable: true,
        mappings: [{ start: '0x0', end: '0x1000', backing: 'private', writable: true }],
      },
      {
        id: 1,
        name: 'bar',
        kind: 'device',
        priority: 0,
        length: '0x4000',
        active: true,
        range: { start: '0x1000', end: '0x5000' },
        writable: true,
        mappings: [{ start: '0x1000', end: '0x3000', backing: 'bar-file+0x1000', writable: false }],
      },
      {
        id: 2,
        name: 'idle',
        kind: 'device',
        priority: 7,
        length: '0x4000',
        active: false,
        writable: true,
        mappings: [],
      },
    ],
    flat: [
      { start: '0x2000', end: '0x3000', region: 'ram0', kind: 'ram', writable: true, backing: 'private' },
      { start: '0x3000', end: '0x4000', region: 'bar', kind: 'device', writable: false, backing: 'bar-file+0x2000' },
    ],
    targets: [
      {
        name: 'one',
        peerToPeer: 'off',
        joined: true,
        mappings: [
          { start: '0x2000', end: '0x3000', region: 'ram0', kind: 'ram', state: 'mapped' },
          {
            start: '0x3000',
            end: '0x4000',
            region: 'bar',
            kind: 'device',
            state: 'skipped',
            reason: 'peer-to-peer is off for it',
          },
        ],
      },
    ],
    quarantine: [],
  });
});

/** Events of this test's own targets and regions. The tests of a file share the process, and so the channels. */
function listen(t: { teardown: (end: () => void) => void }, name: string, heard: (message: unknown) => void): void {
  const listener = (message: unknown): void => heard(message);
  subscribe(name, listener);
  t.teardown(() => void unsubscribe(name, listener));
}

test.serial('publishes changes and mappings on the diagnostics channels after they are made', async (t) => {
  const memory = await guest(t);
  const log: string[] = [];
  for (const what of ['map', 'unmap']) {
    listen(t, `peerdma:dma.${what}`, (message) => {
      const { target, range, kind, region, writable } = message as DmaEvent;
      log.push(`${what} ${target} ${range} ${kind} ${region} ${writable}`);
    });
  }
  listen(t, 'peerdma:memory.change', (message) => {
    const { removed, added } = message as MemoryChangeEvent;
    log.push(`change -[${removed.join()}] +[${added.join()}]`);
  });
  const handle = await memory.dmaMappers.addDmaMapper(new RecordingTarget({ name: 'one' }));
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
  await region.addMapping({ range: pages(0, 2), backing: 'private', writable: false });
  t.deepEqual(log.splice(0), [], 'an inactive region publishes nothing');
  await region.mapToGuest();
  t.deepEqual(log.splice(0), ['map one 0x0..0x2000 ram r false', 'change -[] +[0x0..0x2000]']);
  await region.removeMappings(pages(1, 1));
  t.deepEqual(log.splice(0), [
    'unmap one 0x0..0x2000 ram r false',
    'map one 0x0..0x1000 ram r false',
    'change -[0x0..0x2000] +[0x0..0x1000]',
  ]);
  await region.mapToGuest();
  t.deepEqual(log.splice(0), []);
  await handle.remove();
  t.deepEqual(log.splice(0), ['unmap one 0x0..0x1000 ram r false']);
});

test.serial('publishes no event for a failed change, and an unmap event for each of its map events', async (t) => {
  const memory = await guest(t);
  const log: string[] = [];
  for (const what of ['map', 'unmap']) {
    listen(t, `peerdma:dma.${what}`, (message) => {
      const { target, range } = message as DmaEvent;
      log.push(`${what} ${target} ${range}`);
    });
  }
  let changes = 0;
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await region.addMapping({ range: pages(2, 1), backing: 'private' });
  const first = new RecordingTarget({ name: 'first' });
  const second = new RecordingTarget({ name: 'second' });
  await memory.dmaMappers.addDmaMapper(first);
  await memory.dmaMappers.addDmaMapper(second);
  second.judge = new RefuseAt('map', 1).judge;
  listen(t, 'peerdma:memory.change', () => changes++);
  await rejectsCode(t, region.mapToGuest(), 'ERR_MAP_FAILED');
  t.is(changes, 0);
  const balance = new Map<string, number>();
  for (const entry of log) {
    const [what, target, range] = entry.split(' ');
    const key = `${target} ${range}`;
    balance.set(key, (balance.get(key) ?? 0) + (what === 'map' ? 1 : -1));
    t.true((balance.get(key) ?? 0) >= 0, `${entry}: unmapped without having been mapped`);
  }
  t.deepEqual(
    [...balance.values()].filter((left) => left !== 0),
    [],
  );
});

test.serial('publishes unmap events for all mappings of a closed target, quarantine included', async (t) => {
  const memory = await guest(t, { ram: [0, 4].map((page) => ({ start: at(page), length: PAGE })) });
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  await bar.mapToGuest(at(8));
  const target = new RecordingTarget({ name: 'closing' });
  await memory.dmaMappers.addDmaMapper(target, { peerToPeer: 'off' });
  target.judge = new RefuseAt('unmap', 0).judge;
  const cover = await memory.regions.addRegion({ name: 'cover', range: pages(0, 1), priority: 200 });
  await rejectsCode(t, cover.mapToGuest(), 'ERR_UNMAP_FAILED');
  const log: string[] = [];
  listen(t, 'peerdma:dma.unmap', (message) => {
    const { target: name, range } = message as DmaEvent;
    log.push(`${name} ${range}`);
  });
  await memory.dmaMappers.targetClosed(target);
  t.deepEqual(log.sort(), ['closing 0x0..0x1000', 'closing 0x4000..0x5000']);
});

test.serial(
  'publishes each operation or failure of guest memory with its number, before the next change begins',
  async (t) => {
    const memory = await guest(t);
    const other = await guest(t);
    t.not(memory.id, other.id);
    const log: string[] = [];
    listen(t, 'peerdma:memory.settled', (message) => {
      const { memory: id, action, error } = message as MemorySettledEvent;
      if (id === memory.id)
        log.push(`${action}${error === undefined ? '' : ` ${String(error)}`}: ${memory.inspect().flat.length}`);
    });
    const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 4) });
    const target = new RecordingTarget({ name: 'one' });
    const handle = await memory.dmaMappers.addDmaMapper(target);
    await Promise.all([
      region.addMapping({ range: pages(0, 1), backing: 'private' }),
      region.mapToGuest(),
      region.unmapFromGuest(),
    ]);
    t.deepEqual(log.splice(0), ['change: 0', 'join: 0', 'change: 0', 'change: 1', 'change: 0']);
    target.judge = new RefuseAt('map', 0).judge;
    await rejectsCode(t, region.mapToGuest(), 'ERR_MAP_FAILED');
    t.regex(log.splice(0).join(), /^change PeerDmaError: one: cannot map "r" .*: 0$/);
    await handle.remove();
    await memory.dmaMappers.targetClosed(target);
    await memory.close();
    t.deepEqual(log.splice(0), ['leave: 0', 'close-target: 0', 'close: 0']);
  },
);

test.serial('events have the id of their guest memory', async (t) => {
  const memory = await guest(t);
  const ids: [string, number][] = [];
  for (const name of ['dma.map', 'dma.unmap', 'memory.change']) {
    listen(t, `peerdma:${name}`, (message) => ids.push([name, (message as DmaEvent | MemoryChangeEvent).memory]));
  }
  await memory.dmaMappers.addDmaMapper(new RecordingTarget());
  const region = await memory.regions.addRegion({ name: 'r', range: pages(0, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await region.mapToGuest();
  await region.unmapFromGuest();
  t.deepEqual(
    ids,
    ['dma.map', 'memory.change', 'dma.unmap', 'memory.change'].map((name) => [name, memory.id]),
  );
});
