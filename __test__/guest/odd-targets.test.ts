// Targets of callers: any exception, result or property of theirs leaves guest memory consistent.
import test from 'ava';
import { AddressRange, PeerDmaError } from '../../ts/index.ts';
import { rejectsCode } from '../support/errors.ts';
import { at, guest, PAGE, pages } from '../support/pages.ts';
import { BatchRecordingTarget, RecordingTarget } from '../support/recording-target.ts';

const TWO = {
  ram: [
    { start: 0n, length: PAGE },
    { start: at(4), length: PAGE },
  ],
};

function trap(): never {
  throw new Error('unreadable');
}

/** A value whose inspection throws again. */
const TRAPS: readonly (readonly [string, () => unknown])[] = [
  ['a proxy', () => new Proxy({}, { getPrototypeOf: trap })],
  ['an error without a message', () => Object.defineProperty(new Error('x'), 'message', { get: trap })],
  [
    'an error of the package without a range',
    () => Object.defineProperty(new PeerDmaError('ERR_MAP_FAILED', 'x'), 'range', { get: trap }),
  ],
];

for (const [what, make] of TRAPS) {
  for (const Target of [RecordingTarget, BatchRecordingTarget]) {
    test(`a map that throws an unreadable value leaves nothing behind: ${what}, ${Target.name}`, async (t) => {
      const memory = await guest(t, TWO); // whose close fails if any of it is still leased
      const target = new Target({ needsVa: true });
      target.judge = ({ op, range }) => (op === 'map' && range.start > 0n ? make() : undefined);
      const error = await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_MAP_FAILED');
      t.is(error.target, 'recorder');
      t.deepEqual(target.held(), []);
      t.deepEqual(memory.inspect().targets, []);
    });
  }

  test(`quarantines a range whose unmap throws an unreadable value: ${what}`, async (t) => {
    const memory = await guest(t);
    const region = await memory.regions.addRegion({ name: 'r', range: pages(4, 4) });
    await region.addMapping({ range: pages(0, 1), backing: 'private' });
    await region.addMapping({ range: pages(2, 1), backing: 'private' });
    await region.mapToGuest();
    const target = new RecordingTarget({ needsVa: true });
    const handle = await memory.dmaMappers.addDmaMapper(target);
    target.judge = ({ op, range }) => (op === 'unmap' && range.start === at(6) ? make() : undefined);
    const error = await rejectsCode(t, region.unmapFromGuest(), 'ERR_UNMAP_FAILED');
    t.deepEqual(error.range, pages(6, 1));
    t.deepEqual(
      handle.status().map(({ state }) => state),
      ['mapped', 'quarantined'],
    );
    t.is(target.held().length, 2);
    await memory.dmaMappers.targetClosed(target);
  });
}

test('reads the properties of a target once, when it joins', async (t) => {
  const memory = await guest(t, TWO);
  const target = new BatchRecordingTarget({ needsVa: true });
  const handle = await memory.dmaMappers.addDmaMapper(target);
  for (const what of ['mapDmaBatch', 'accepts', 'mapsForProcessors', 'needsVa', 'name'])
    Object.defineProperty(target, what, { get: trap });
  target.judge = () => undefined;
  const take = { mapDma: () => {}, unmapDma: () => {} };
  Object.assign(target, take); // this target's own methods read the other properties
  const region = await memory.regions.addRegion({ name: 'r', range: pages(8, 2) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  await region.mapToGuest();
  await region.unmapFromGuest();
  await handle.remove();
  t.deepEqual(memory.inspect().targets, []);
});

test('maps everything to a target that drops mapDmaBatch while it joins', async (t) => {
  const memory = await guest(t, TWO);
  const target = new BatchRecordingTarget({ needsVa: true });
  const batch = target.mapDmaBatch.bind(target);
  let looks = 0;
  Object.defineProperty(target, 'mapDmaBatch', { get: () => (looks++ < 2 ? batch : undefined) });
  await memory.dmaMappers.addDmaMapper(target);
  t.is(target.held().length, 2);
});

test('rejects a target whose mapDmaBatch is not a method', async (t) => {
  const memory = await guest(t, TWO);
  const target = Object.assign(new RecordingTarget(), { mapDmaBatch: null });
  await rejectsCode(t, memory.dmaMappers.addDmaMapper(target as never), 'ERR_INVALID_ARGUMENT');
  t.deepEqual(memory.inspect().targets, []);
});

test('any result or exception of a failing method is a failure', async (t) => {
  const memory = await guest(t, TWO);
  const region = await memory.regions.addRegion({ name: 'r', range: pages(8, 1) });
  await region.addMapping({ range: pages(0, 1), backing: 'private' });
  const failures: (() => unknown)[] = [
    () => Promise.reject(undefined),
    () => Promise.reject(null),
    // oxlint-disable-next-line unicorn/no-thenable
    () => ({ then: (_: unknown, reject: (reason: unknown) => void) => reject('no') }),
    // oxlint-disable-next-line unicorn/no-thenable
    () => Object.defineProperty({}, 'then', { get: trap }),
    () => {
      throw undefined;
    },
  ];
  for (const failure of failures) {
    const target = new RecordingTarget({ needsVa: true });
    await memory.dmaMappers.addDmaMapper(target);
    const before = memory.inspect();
    Object.assign(target, { mapDma: failure });
    await rejectsCode(t, region.mapToGuest(), 'ERR_MAP_FAILED');
    t.deepEqual(memory.inspect(), before);
    Reflect.deleteProperty(target, 'mapDma');
    await region.mapToGuest();
    Object.assign(target, { unmapDma: failure });
    await rejectsCode(t, region.unmapFromGuest(), 'ERR_UNMAP_FAILED');
    t.is(memory.inspect().quarantine.length, 1);
    await memory.dmaMappers.targetClosed(target);
    await region.unmapFromGuest();
  }
});

test('a batch that reports which of its ranges failed is quoted with that range', async (t) => {
  const memory = await guest(t, TWO);
  const target = new BatchRecordingTarget();
  target.judge = ({ op, range }) =>
    op === 'map' && range.start > 0n ? new PeerDmaError('ERR_MAP_FAILED', 'no room', { range }) : undefined;
  const error = await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_MAP_FAILED');
  t.deepEqual(error.range, pages(4, 1));
  t.is(error.target, 'recorder');
  t.regex(error.message, /"ram1" at 0x4000\.\.0x5000: no room/);
});

test('records a failure with ERR_MAPPING_REVOKED as ERR_MAP_FAILED', async (t) => {
  const memory = await guest(t);
  const target = new RecordingTarget();
  const handle = await memory.dmaMappers.addDmaMapper(target);
  const bar = memory.newDeviceMemory({ name: 'bar', length: PAGE });
  await bar.addMapping({ range: AddressRange.of(0n, PAGE), backing: 'private' });
  const range = pages(4, 1);
  for (const details of [{}, { range, target: 'recorder' }]) {
    target.judge = () => new PeerDmaError('ERR_MAPPING_REVOKED', 'switched off', details);
    await bar.mapToGuest(at(4));
    t.like(handle.status()[0], { state: 'failed', code: 'ERR_MAP_FAILED' });
    t.is(memory.explain(at(4)).targets[0]?.state, 'failed');
    await bar.unmapFromGuest();
  }
});
