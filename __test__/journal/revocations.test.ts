// readJournal() rebuilds the snapshot of inspect() when mappings are revoked, rejected and quarantined in any order.
import test from 'ava';
import fc from 'fast-check';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  AddressRange,
  type DeviceMemory,
  GuestMemory,
  type MemorySettledEvent,
  type MemorySnapshot,
  readJournal,
  recordJournal,
} from '../../ts/index.ts';
import { MemoryOfDevice, RevocableTarget } from '../support/device-file.ts';
import { at, guest, PAGE } from '../support/pages.ts';
import { scratchFolder } from '../support/scratch.ts';
import { seedOf } from '../support/seed.ts';

const WINDOWS = 3;

const step = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('revoke' as const), device: fc.nat(WINDOWS - 1), isUnclear: fc.boolean() }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constant('place' as const), device: fc.nat(WINDOWS - 1), page: fc.nat(12) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ op: fc.constant('refuse' as const), what: fc.constantFrom('map', 'unmap', 'nothing') }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      op: fc.constant('cover' as const),
      page: fc.nat(12),
      length: fc.integer({ min: 1, max: 4 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('uncover' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('refresh' as const) }) },
  { weight: 1, arbitrary: fc.record({ op: fc.constant('replace' as const) }) },
);

test('rebuilds the snapshot of inspect() after each change, with revoked mappings', async (t) => {
  const file = join(scratchFolder(t), 'journal');
  const devices = Array.from({ length: WINDOWS }, (_, index) => new MemoryOfDevice(t, `device ${index}`, 4));
  let voids = 0;
  let quarantined = 0;
  const property = fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async (steps) => {
    const memory = await GuestMemory.create({
      addressWidth: 20,
      ram: [{ start: at(40), length: PAGE, private: true }],
    });
    const windows = devices.map(({ file: backing }, index) => {
      const window = memory.newDeviceMemory({ name: `window ${index}`, length: at(4) });
      return {
        window,
        ready: window.addMapping({ range: AddressRange.of(0n, at(4)), backing: { file: backing, offset: 0n } }),
      };
    });
    for (const { ready } of windows) await ready;
    let target = new RevocableTarget({ name: 'target' });
    let handle = await memory.dmaMappers.addDmaMapper(target);
    const cover = memory.newDeviceMemory({ name: 'cover', length: at(4) });
    const seen: MemorySnapshot[] = [memory.inspect()];
    const journal = recordJournal(memory, file);
    const look = (message: unknown): void => {
      if ((message as MemorySettledEvent).memory === memory.id) seen.push(memory.inspect());
    };
    subscribe('peerdma:memory.settled', look);
    const attempt = (promise: Promise<unknown>): Promise<unknown> => promise.catch(() => {});
    for (const one of steps) {
      if (one.op === 'revoke') devices[one.device]?.revoke(one.isUnclear);
      else if (one.op === 'place')
        await attempt(windows[one.device]?.window.mapToGuest(at(one.page)) ?? Promise.resolve());
      else if (one.op === 'refuse') {
        target.judge = ({ op }) => (op === one.what ? new Error('refused') : undefined);
      } else if (one.op === 'cover') {
        await attempt(cover.addMapping({ range: AddressRange.of(0n, at(one.length)), backing: 'private' }));
        await attempt(cover.mapToGuest(at(one.page)));
      } else if (one.op === 'uncover') await attempt(cover.unmapFromGuest());
      else if (one.op === 'refresh') await attempt(handle.refresh());
      else {
        target.loseAll();
        await memory.dmaMappers.targetClosed(target);
        target = new RevocableTarget({ name: 'target' });
        handle = await memory.dmaMappers.addDmaMapper(target);
      }
      const [status] = memory.inspect().targets;
      voids += status?.mappings.filter(({ code }) => code === 'ERR_MAPPING_REVOKED').length ?? 0;
      quarantined += memory.inspect().quarantine.length;
    }
    target.loseAll();
    await memory.dmaMappers.targetClosed(target);
    await memory.close();
    unsubscribe('peerdma:memory.settled', look);
    if (journal.failure !== undefined) throw journal.failure;
    const entries = [...readJournal(readFileSync(file, 'utf8'))].map(({ snapshot }) => snapshot);
    t.deepEqual(entries.filter(isNew), seen.filter(isNew));
  });
  await fc.assert(property, { seed: seedOf(t), numRuns: 150 });
  t.log(`${voids} void, ${quarantined} quarantined`);
  t.true(voids > 100);
  t.true(quarantined > 30);
});

test('a change checks only new mappings of a target, and those of a device that lost mappings', async (t) => {
  const memory = await guest(t);
  const target = new RevocableTarget();
  await memory.dmaMappers.addDmaMapper(target);
  const place = async (device: MemoryOfDevice, page: number): Promise<DeviceMemory> => {
    const window = memory.newDeviceMemory({ name: 'window', length: PAGE });
    await window.addMapping({ range: AddressRange.of(0n, PAGE), backing: { file: device.file, offset: 0n } });
    await window.mapToGuest(at(page));
    return window;
  };
  const [device, other] = [new MemoryOfDevice(t, 'device', 1), new MemoryOfDevice(t, 'other', 1)];
  const moved = await place(device, 1);
  using journal = recordJournal(memory, '/dev/null');
  const askedFor = async (act: () => Promise<void>): Promise<number> => {
    const before = target.revocationChecks;
    await act();
    return target.revocationChecks - before;
  };
  const move = async (): Promise<void> => {
    await moved.mapToGuest(at(2));
    await moved.mapToGuest(at(1));
  };
  const few = await askedFor(move);
  for (let page = 0; page < 50; page++) await place(other, 100 + page);
  t.is(await askedFor(move), few);
  other.revoke();
  t.is(await askedFor(move), few + 50, 'once');
  t.is(await askedFor(move), few);
  t.is(journal.failure, undefined);
});

/** Whether a state differs from the state before. */
function isNew(snapshot: MemorySnapshot, index: number, all: readonly MemorySnapshot[]): boolean {
  return JSON.stringify(snapshot) !== JSON.stringify(all[index - 1]);
}
