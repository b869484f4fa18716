// The messages of a front end: which are sent, in which order, and what they contain.
import test from 'ava';
import { AddressRange, EventFd, GuestMemory, MemoryFile, UnixSocket } from '../../ts/index.ts';
import { VhostUserTarget } from '../../ts/vhost-user.ts';
import { rejectsCode } from '../support/errors.ts';
import { BIT } from './support/back-end.ts';
import { MIB, guestMemory, pairOf, queueAt } from './support/scene.ts';

const START = [
  'GET_FEATURES',
  'GET_PROTOCOL_FEATURES',
  'SET_PROTOCOL_FEATURES',
  'GET_FEATURES',
  'GET_QUEUE_NUM',
  'GET_MAX_MEM_SLOTS',
];

test('negotiates features, and reports what the back end offers', async (t) => {
  const features = BIT.protocolFeatures | BIT.version1 | (1n << 9n) | (1n << 26n) | (1n << 33n) | (1n << 34n);
  const { backEnd, target } = await pairOf(t, { features, queues: 3, slots: 17 }, { name: 'disk' });
  t.deepEqual(backEnd.requests, [...START, 'SET_OWNER', 'SET_FEATURES']);
  t.is(target.name, 'disk');
  t.is(target.state, 'connected');
  t.is(target.deviceFeatures, BIT.version1 | (1n << 9n), 'neither logs, nor translated addresses, nor packed rings');
  t.is(target.queueCount, 3);
  t.is(target.memorySlots, 17);
  t.is(backEnd.acceptedFeatures, BIT.version1 | BIT.protocolFeatures);
  t.is(backEnd.acceptedProtocol, BIT.mq | BIT.replyAck | BIT.config | BIT.resetDevice | BIT.memorySlots);
  await target.setFeatures(BIT.version1 | (1n << 9n));
  t.is(backEnd.acceptedFeatures, BIT.version1 | BIT.protocolFeatures | (1n << 9n));
  t.is(target.features, BIT.version1 | (1n << 9n));
  await rejectsCode(t, target.setFeatures(1n << 10n), 'ERR_UNSUPPORTED');
  await rejectsCode(t, target.setFeatures(1n << 33n), 'ERR_UNSUPPORTED');
});

test('works with a back end without protocol features', async (t) => {
  const { backEnd, target } = await pairOf(t, { features: 0n });
  t.deepEqual(backEnd.requests, ['GET_FEATURES', 'SET_OWNER', 'GET_FEATURES', 'SET_FEATURES', 'GET_FEATURES']);
  t.is(target.queueCount, undefined);
  t.is(target.memorySlots, 8);
  t.is(backEnd.acceptedFeatures, 0n);
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  await target.setQueue(0, queueAt(t, 0x1000n));
  t.false(backEnd.requests.includes('SET_VRING_ENABLE'), 'queues start enabled');
  await rejectsCode(t, target.readConfig(0, 8), 'ERR_UNSUPPORTED');
});

for (const slots of [true, false]) {
  const way = slots ? 'ADD_MEM_REG' : 'SET_MEM_TABLE';
  test(`the memory of a back end is the memory of the guest, with ${way}`, async (t) => {
    const protocol = BIT.mq | BIT.replyAck | (slots ? BIT.memorySlots : 0n);
    const { backEnd, target } = await pairOf(t, { protocol });
    const memory = await guestMemory(t);
    const joined = await memory.dmaMappers.addDmaMapper(target);
    t.deepEqual(backEnd.ranges(), ['0x0..0x400000']);
    memory.write(0x1234n, Uint8Array.of(1, 2, 3));
    t.deepEqual(backEnd.read(0x1234n, 3), Uint8Array.of(1, 2, 3));
    backEnd.write(0x1235n, Uint8Array.of(9));
    t.deepEqual(memory.read(0x1234n, 3), Uint8Array.of(1, 9, 3));

    using file = MemoryFile.create(2n * MIB);
    const hot = await memory.regions.addRegion({ name: 'hot', range: AddressRange.of(1n << 32n, MIB) });
    await hot.addMapping({ backing: { file, offset: MIB } });
    await hot.mapToGuest();
    t.deepEqual(backEnd.ranges(), ['0x0..0x400000', '0x100000000..0x100100000']);
    backEnd.write((1n << 32n) + 7n, Uint8Array.of(42));
    t.deepEqual(file.read(MIB + 7n, 1), Uint8Array.of(42), 'at the offset of the mapping in its file');
    await hot.remove();
    t.deepEqual(backEnd.ranges(), ['0x0..0x400000']);
    await joined.remove();
    t.deepEqual(backEnd.ranges(), []);
    t.true(backEnd.requests.includes(way));
  });
}

test('receives no memory that a back end could not map or must not write', async (t) => {
  const { backEnd, target } = await pairOf(t);
  const memory = await guestMemory(t);
  using rom = MemoryFile.create(MIB);
  const region = await memory.regions.addRegion({ name: 'rom', range: AddressRange.of(16n * MIB, MIB) });
  await region.addMapping({ backing: { file: rom, offset: 0n }, writable: false });
  await region.mapToGuest();
  const joined = await memory.dmaMappers.addDmaMapper(target);
  t.deepEqual(backEnd.ranges(), ['0x0..0x400000']);
  t.like(joined.status()[1], { region: 'rom', state: 'skipped' });
  const more = await memory.regions.addRegion({ name: 'private', range: AddressRange.of(32n * MIB, MIB) });
  await more.mapToGuest();
  await rejectsCode(t, more.addMapping({ backing: 'private' }), 'ERR_FILE_REQUIRED');
});

test('starts a queue with addresses, events and index of its driver, and returns the index when stopped', async (t) => {
  const { backEnd, target } = await pairOf(t);
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  const queue = queueAt(t, 0x1000n);
  using error = EventFd.create();
  await target.setQueue(2, { ...queue, base: 7, error });
  const theirs = backEnd.queues[2];
  t.like(theirs, { size: 8, base: 7, enabled: true, started: true });
  t.deepEqual(theirs?.addresses, [0x1000n, 0x1200n, 0x1100n]);
  queue.kick.signal();
  t.is(theirs?.kick?.take(), 1n);
  theirs?.call?.signal(2n);
  t.is(queue.call.take(), 2n);
  theirs?.error?.signal();
  t.is(error.take(), 1n);
  if (theirs !== undefined) theirs.base = 9;
  t.is(await target.stopQueue(2), 9);
  t.like(theirs, { started: false });
  await target.setQueue(2, { ...queue, base: 9 });
  t.like(theirs, { base: 9, started: true });
});

test('a queue without a call event is polled', async (t) => {
  const { backEnd, target } = await pairOf(t);
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  const { call, ...queue } = queueAt(t, 0x1000n);
  void call;
  await target.setQueue(0, queue);
  t.is(backEnd.queues[0]?.call, undefined);
});

test('a queue stops before its memory is unmapped, and continues when it is mapped again', async (t) => {
  const { backEnd, target } = await pairOf(t);
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  const queue = queueAt(t, 0x1000n);
  await target.setQueue(0, queue);
  const theirs = backEnd.queues[0];
  if (theirs !== undefined) theirs.base = 5;
  queue.call.take();
  const before = backEnd.requests.length;
  const overlay = await memory.regions.addRegion({ name: 'overlay', range: AddressRange.of(0n, MIB), priority: 1000 });
  using file = MemoryFile.create(MIB);
  await overlay.addMapping({ backing: { file, offset: 0n } });
  await overlay.mapToGuest();
  const requests = backEnd.requests.slice(before);
  t.true(requests.indexOf('GET_VRING_BASE') < requests.indexOf('REM_MEM_REG'), requests.join());
  t.true(requests.indexOf('SET_VRING_KICK') > requests.lastIndexOf('ADD_MEM_REG'), requests.join());
  t.like(theirs, { started: true, enabled: true, base: 5 });
  t.is(theirs?.kick?.take(), 1n, 'buffers may have become available meanwhile');
  t.is(queue.call.take(), 1n);
});

test('the events of a queue can be closed by their owner', async (t) => {
  const { backEnd, target } = await pairOf(t, { protocol: BIT.replyAck });
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  const queue = queueAt(t, 0x1000n);
  await target.setQueue(0, queue);
  queue.kick.close();
  queue.call.close();
  using file = MemoryFile.create(MIB);
  const hot = await memory.regions.addRegion({ name: 'hot', range: AddressRange.of(1n << 32n, MIB) });
  await hot.addMapping({ backing: { file, offset: 0n } });
  await hot.mapToGuest(); // a new table: the queue is started again
  t.is(backEnd.queues[0]?.kick?.take(), 1n);
});

test('rejects queues that a device cannot have', async (t) => {
  const { target } = await pairOf(t, { queues: 2 });
  const memory = await guestMemory(t);
  const queue = queueAt(t, 0x1000n);
  await rejectsCode(t, target.setQueue(0, queue), 'ERR_NOT_MAPPED', 'before there is memory');
  await memory.dmaMappers.addDmaMapper(target);
  await rejectsCode(t, target.setQueue(256, queue), 'ERR_OUT_OF_RANGE');
  await rejectsCode(t, target.setQueue(0, { ...queue, size: 6 }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, target.setQueue(0, { ...queue, size: 0 }), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, target.setQueue(0, { ...queue, usedRing: 0x1202n }), 'ERR_UNALIGNED');
  await rejectsCode(t, target.setQueue(0, { ...queue, usedRing: 4n * MIB - 64n }), 'ERR_NOT_MAPPED');
  await target.setQueue(0, queue);
  await rejectsCode(t, target.setQueue(0, queue), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, target.stopQueue(1), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, target.setFeatures(0n), 'ERR_INVALID_ARGUMENT', 'while there are queues');
});

test('reads and writes config space', async (t) => {
  const { backEnd, target } = await pairOf(t);
  t.deepEqual(await target.readConfig(4, 3), Uint8Array.of(4, 5, 6));
  t.deepEqual(await target.readConfig(4, 0), new Uint8Array());
  await target.writeConfig(5, Uint8Array.of(50, 60));
  t.deepEqual(backEnd.config.slice(4, 8), Uint8Array.of(4, 50, 60, 7));
  await rejectsCode(t, target.readConfig(60, 8), 'ERR_REQUEST_REFUSED', 'past the end of its config space');
  await rejectsCode(t, target.readConfig(250, 8), 'ERR_OUT_OF_RANGE');
  t.is(target.state, 'connected');
});

test('a reset stops all queues', async (t) => {
  const { backEnd, target } = await pairOf(t);
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  await target.setQueue(0, queueAt(t, 0x1000n));
  await target.setQueue(1, queueAt(t, 0x2000n));
  await target.reset();
  const expected = ['GET_VRING_BASE', 'GET_VRING_BASE', 'RESET_DEVICE', 'SET_FEATURES'];
  t.deepEqual(backEnd.requests.slice(-4), expected, 'the features are sent again');
  t.is(backEnd.acceptedFeatures, BIT.version1 | BIT.protocolFeatures);
  await target.setFeatures(0n);
  await target.setQueue(0, queueAt(t, 0x1000n));
  t.deepEqual(backEnd.ranges(), ['0x0..0x400000'], 'memory stays');
});

test('a queue continues if the back end refuses a reset', async (t) => {
  const { backEnd, target } = await pairOf(t);
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  await target.setQueue(0, queueAt(t, 0x1000n));
  backEnd.next.set('RESET_DEVICE', 'refuse');
  await rejectsCode(t, target.reset(), 'ERR_REQUEST_REFUSED');
  t.like(backEnd.queues[0], { started: true, enabled: true });
  await target.reset();
  t.like(backEnd.queues[0], { started: false });
});

test('a queue continues with the memory before if the back end refuses a table', async (t) => {
  const { backEnd, target } = await pairOf(t, { protocol: BIT.replyAck });
  const memory = await guestMemory(t);
  backEnd.next.set('SET_MEM_TABLE', 'refuse');
  await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_REQUEST_REFUSED');
  await memory.dmaMappers.addDmaMapper(target);
  await target.setQueue(0, queueAt(t, 0x1000n));
  const hot = await memory.regions.addRegion({ name: 'hot', range: AddressRange.of(1n << 32n, MIB) });
  using file = MemoryFile.create(MIB);
  await hot.addMapping({ backing: { file, offset: 0n } });
  backEnd.next.set('SET_MEM_TABLE', 'refuse');
  await rejectsCode(t, hot.mapToGuest(), 'ERR_REQUEST_REFUSED');
  t.is(target.state, 'connected');
  t.deepEqual(backEnd.ranges(), ['0x0..0x400000']);
  t.like(backEnd.queues[0], { started: true, enabled: true });
});

test('adds and removes regions one by one only if the back end reports refusals', async (t) => {
  const { backEnd, target } = await pairOf(t, { protocol: BIT.memorySlots });
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  t.is(backEnd.acceptedProtocol, 0n);
  t.is(target.memorySlots, 8);
  t.true(backEnd.requests.includes('SET_MEM_TABLE'));
});

test('undoes a part of a batch, also by the end of the back end', async (t) => {
  const { backEnd, target } = await pairOf(t);
  const memory = await guestMemory(t);
  const ram = AddressRange.of(1n << 32n, MIB);
  const hot = await memory.regions.addRegion({ name: 'hot', range: ram });
  using file = MemoryFile.create(MIB);
  await hot.addMapping({ backing: { file, offset: 0n } });
  await hot.mapToGuest();
  backEnd.next.set('ADD_MEM_REG', 'refuse');
  backEnd.next.set('REM_MEM_REG', 'die');
  await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_REQUEST_REFUSED');
  t.deepEqual(memory.inspect().quarantine, []);
});

test('a queue can have any index of a message, whatever the back end counts', async (t) => {
  const { backEnd, target } = await pairOf(t, { queues: 1 });
  const memory = await guestMemory(t);
  await memory.dmaMappers.addDmaMapper(target);
  await target.setQueue(1, queueAt(t, 0x1000n)); // the second queue of a pair, which DPDK counts as one
  t.like(backEnd.queues[1], { started: true });
});

test('sends many regions in parts, and waits for the confirmations of each', async (t) => {
  const count = 300;
  const { backEnd, target } = await pairOf(t, { slots: 512 });
  using file = MemoryFile.create(4096n);
  const requests = Array.from({ length: count }, (_, index) => ({
    range: AddressRange.of(BigInt(index) * 8192n, 4096n),
    backing: { file, offset: 0n },
    writable: true,
    kind: 'ram' as const,
    name: `ram ${index}`,
  }));
  await target.mapDmaBatch(requests);
  t.is(backEnd.regions.size, count);
});

test('rejects a read of config space that the back end refuses, with or without a payload', async (t) => {
  const { backEnd, target } = await pairOf(t);
  backEnd.next.set('GET_CONFIG', 'no config'); // the crate "vhost" of rust-vmm
  await rejectsCode(t, target.readConfig(0, 8), 'ERR_REQUEST_REFUSED');
  await rejectsCode(t, target.readConfig(60, 8), 'ERR_REQUEST_REFUSED', 'past its end');
  t.deepEqual(await target.readConfig(2, 2), Uint8Array.of(2, 3));
});

test('rejects more mappings than the back end has slots, without a change', async (t) => {
  for (const protocol of [BIT.memorySlots | BIT.replyAck, BIT.replyAck]) {
    const { backEnd, target } = await pairOf(t, { protocol, slots: 8 });
    const memory = await GuestMemory.create();
    t.teardown(() => memory.close());
    const ram = Array.from({ length: 9 }, (_, index) => BigInt(index) * 2n * MIB);
    using file = MemoryFile.create(MIB);
    for (const start of ram) {
      const region = await memory.regions.addRegion({ name: `ram ${start}`, range: AddressRange.of(start, MIB) });
      await region.addMapping({ backing: { file, offset: 0n } });
      await region.mapToGuest();
    }
    await rejectsCode(t, memory.dmaMappers.addDmaMapper(target), 'ERR_MAPPING_LIMIT');
    t.deepEqual(backEnd.ranges(), []);
    t.deepEqual(memory.inspect().targets, []);
  }
});

test('rejects arguments of other types', async (t) => {
  const [ours, theirs] = UnixSocket.pair();
  t.teardown(() => [ours, theirs].forEach((socket) => socket.close()));
  for (const options of [
    { timeout: 0 },
    { timeout: 1.5 },
    { reconnect: 10 },
    { name: '' },
    { features: -1n },
    { withoutProtocolFeatures: ['NONE'] },
  ]) {
    await rejectsCode(
      t,
      VhostUserTarget.connect(ours, options as object),
      'ERR_INVALID_ARGUMENT',
      JSON.stringify(Object.keys(options)),
    );
  }
  await rejectsCode(t, VhostUserTarget.connect(5 as never), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, VhostUserTarget.connect('/nowhere'), 'ERR_SYSTEM');
});
