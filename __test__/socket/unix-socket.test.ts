// Sockets: bytes in order, descriptors with their message, and errors of a peer that ends.
import test, { type ExecutionContext } from 'ava';
import { setImmediate as turn } from 'node:timers/promises';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { EventFd, MemoryFile, type ReceivedMessage, UnixSocket } from '../../ts/index.ts';
import { MESSAGE_WORDS, NO_DESCRIPTOR, sendMessages } from '../../ts/unix-socket.ts';
import { rejectsCode, throwsCode } from '../support/errors.ts';
import { openFiles } from '../support/open-files.ts';
import { PAGE } from '../support/pages.ts';
import { scratchFolder } from '../support/scratch.ts';
import { startPeer } from './support/process.ts';

function pair(t: ExecutionContext): [UnixSocket, UnixSocket] {
  const sockets = UnixSocket.pair();
  t.teardown(() => sockets.forEach((socket) => socket.close()));
  return sockets;
}

async function received(socket: UnixSocket, length: number): Promise<ReceivedMessage> {
  const message = await socket.receive(length);
  if (message === undefined) throw new Error('the stream has ended');
  return message;
}

const text = ({ bytes }: ReceivedMessage): string => Buffer.from(bytes).toString();
const bytes = (from: string): Uint8Array => Buffer.from(from);

test('receives exactly the requested bytes, before or after they were sent', async (t) => {
  const [one, other] = pair(t);
  await one.send(bytes('header'));
  await one.send(bytes('payload'));
  t.is(text(await received(other, 10)), 'headerpayl');
  t.is(text(await received(other, 3)), 'oad');
  const waiting = received(other, 6);
  await one.send(bytes('abc'));
  await turn();
  await one.send(bytes('def+'));
  t.is(text(await waiting), 'abcdef');
  t.is(text(await received(other, 1)), '+');
});

test('completes waiting receives and sends in the order of their start', async (t) => {
  const [one, other] = pair(t);
  const large = new Uint8Array(1 << 20);
  const order: string[] = [];
  const sends = [large.fill(1), bytes('second'), bytes('third')].map((message, index) =>
    one.send(message).then(() => order.push(`send ${index}`)),
  );
  large.fill(2); // the socket has copied the unsent bytes
  const lengths = [1 << 19, 1 << 19, 6, 5];
  const messages = await Promise.all(lengths.map((length) => received(other, length)));
  await Promise.all(sends);
  t.deepEqual(order, ['send 0', 'send 1', 'send 2']);
  t.deepEqual(messages.slice(2).map(text), ['second', 'third']);
  t.true(messages.slice(0, 2).every((message) => message.bytes.every((byte) => byte === 1)));
});

test('sends nothing between the parts of a message, and its descriptors once', async (t) => {
  const [one, other] = pair(t);
  const sent = one.send(new Uint8Array(1 << 20), { descriptors: [one, other] });
  const first = other.receive(1 << 16); // at once: the queue has space for the second message
  const second = one.send(bytes('second'));
  const rest = await received(other, (1 << 20) - (1 << 16));
  t.true(rest.bytes.every((byte) => byte === 0));
  t.is(text(await received(other, 6)), 'second');
  await Promise.all([sent, second]);
  const descriptors = [...((await first)?.descriptors ?? []), ...rest.descriptors];
  t.is(descriptors.length, 2);
  for (const descriptor of descriptors) descriptor.close();
});

test('carries files and events, which the receiver owns', async (t) => {
  const [one, other] = pair(t);
  const file = MemoryFile.create(PAGE);
  file.write(0n, bytes('from the sender'));
  const event = EventFd.create();
  await one.send(bytes('x'), { descriptors: [file, event, one.fd] });
  file.close();
  const { descriptors } = await received(other, 1);
  t.is(descriptors.length, 3);
  const [first, second, third] = descriptors;
  if (first === undefined || second === undefined || third === undefined) throw new Error('three were sent');
  using copy = MemoryFile.fromFd(first.fd);
  t.is(Buffer.from(copy.read(0n, 15)).toString(), 'from the sender');
  using counter = EventFd.fromFd(second.fd);
  counter.signal(3n);
  t.is(event.take(), 3n);
  using own = UnixSocket.fromFd(third.fd);
  await own.send(bytes('y'));
  t.is(text(await received(other, 1)), 'y');
  for (const descriptor of descriptors) descriptor.close();
  throwsCode(t, () => first.fd, 'ERR_CLOSED');
  event.close();
});

test.serial('sends the descriptors that were open when a send began to wait', async (t) => {
  const [one, other] = pair(t);
  const ofEvents = (): number => openFiles().filter((name) => name.includes('eventfd')).length;
  const event = EventFd.create();
  event.onSignal(() => {}); // starts the watcher, which has events of its own
  event.onSignal(undefined);
  const before = ofEvents() - 1;
  const full = one.send(new Uint8Array(1 << 20));
  const waiting = one.send(bytes('z'), { descriptors: [event] });
  const { fd } = event;
  event.close();
  using file = MemoryFile.create(PAGE);
  t.is(file.fd, fd, 'another file has the number now');
  await received(other, 1 << 20);
  const { descriptors } = await received(other, 1);
  await Promise.all([full, waiting]);
  t.is(descriptors.length, 1);
  using copy = EventFd.fromFd(descriptors[0]?.fd ?? -1);
  t.is(copy.take(), 0n);
  descriptors[0]?.close();
  copy.close();
  t.is(ofEvents(), before);
});

test('resolves with undefined at the end of the stream, and rejects in the middle of a message', async (t) => {
  const [one, other] = pair(t);
  await one.send(bytes('abc'));
  one.close();
  const error = await rejectsCode(t, other.receive(4), 'ERR_PEER_CLOSED');
  t.regex(error.message, /after 3 of 4 bytes/);
  t.is(await other.receive(4), undefined);
  const broken = await rejectsCode(t, other.send(bytes('x')), 'ERR_PEER_CLOSED');
  t.is(broken.errno, 'EPIPE');
});

test('keeps the bytes and descriptors of an aborted receive for the next one', async (t) => {
  const [one, other] = pair(t);
  const controller = new AbortController();
  const waiting = other.receive(8, { signal: controller.signal });
  const behind = other.receive(2);
  using event = EventFd.create();
  await one.send(bytes('head'), { descriptors: [event] });
  for (let turns = 0; turns < 20; turns++) await turn();
  controller.abort(new Error('enough'));
  await t.throwsAsync(waiting, { message: 'enough' });
  const first = await behind;
  t.is(first?.descriptors.length, 1);
  t.is(Buffer.from(first?.bytes ?? []).toString(), 'he');
  const second = await received(other, 2);
  t.is(text(second), 'ad');
  t.is(second.descriptors.length, 0);
  first?.descriptors[0]?.close();
});

test('closes the socket if a send is aborted in the middle of its message, and else keeps it', async (t) => {
  const [one, other] = pair(t);
  const controller = new AbortController();
  const { signal } = controller;
  const partly = one.send(new Uint8Array(1 << 22), { signal });
  const behind = one.send(bytes('x'));
  controller.abort(new Error('enough'));
  await t.throwsAsync(partly, { message: 'enough' });
  await rejectsCode(t, behind, 'ERR_CLOSED');
  await rejectsCode(t, one.send(bytes('x')), 'ERR_CLOSED');
  await t.throwsAsync(other.send(bytes('x'), { signal }), { message: 'enough' });
  await t.throwsAsync(other.receive(1, { signal }), { message: 'enough' });
});

test('rejects waiting calls when it is closed, and every call after that', async (t) => {
  const [one] = pair(t);
  const waiting = one.receive(1);
  one.close();
  one.close();
  await rejectsCode(t, waiting, 'ERR_CLOSED');
  await rejectsCode(t, one.receive(1), 'ERR_CLOSED');
  await rejectsCode(t, one.send(bytes('x')), 'ERR_CLOSED');
  throwsCode(t, () => one.fd, 'ERR_CLOSED');
});

test('rejects invalid lengths, messages and descriptors, and sends nothing', async (t) => {
  const [one, other] = pair(t);
  await rejectsCode(t, one.receive(0), 'ERR_INVALID_ARGUMENT');
  await rejectsCode(t, one.send(new Uint8Array()), 'ERR_INVALID_ARGUMENT');
  const many = Array.from({ length: 254 }, () => one.fd);
  await rejectsCode(t, one.send(bytes('x'), { descriptors: many }), 'ERR_INVALID_ARGUMENT');
  for (const descriptor of [-1, 2 ** 31 - 1, 1.5, 'x', {}, { fd: '3' }, null]) {
    const sent = one.send(bytes('x'), { descriptors: [descriptor as number] });
    await rejectsCode(t, sent, 'ERR_INVALID_ARGUMENT', String(descriptor));
  }
  using file = MemoryFile.create(PAGE);
  throwsCode(t, () => UnixSocket.fromFd(file.fd), 'ERR_INVALID_ARGUMENT');
  throwsCode(t, () => EventFd.fromFd(one.fd), 'ERR_INVALID_ARGUMENT');
  await one.send(bytes('end'), { descriptors: many.slice(0, 253) });
  const last = await received(other, 3);
  t.is(text(last), 'end');
  t.is(last.descriptors.length, 253);
  for (const descriptor of last.descriptors) descriptor.close();
});

test('connects to a listener, and reports that there is none', async (t) => {
  const path = join(scratchFolder(t), 'socket');
  const none = await rejectsCode(t, UnixSocket.connect(path), 'ERR_SYSTEM');
  t.is(none.errno, 'ENOENT');
  t.true(none.message.includes(path));
  await rejectsCode(t, UnixSocket.connect('x'.repeat(108)), 'ERR_INVALID_ARGUMENT');
  const server = createServer((accepted) => accepted.end('welcome')).listen(path);
  await once(server, 'listening');
  using socket = await UnixSocket.connect(path);
  t.is(text(await received(socket, 7)), 'welcome');
  t.is(await socket.receive(1), undefined);
  await t.throwsAsync(UnixSocket.connect(path, { signal: AbortSignal.abort(new Error('late')) }), { message: 'late' });
  server.close();
});

test('exchanges messages and descriptors with another process', async (t) => {
  const { socket } = startPeer(t, 'echo');
  using event = EventFd.create();
  await socket.send(bytes('ping'), { descriptors: [event] });
  const reply = await received(socket, 4);
  t.is(text(reply), 'ping');
  using copy = EventFd.fromFd(reply.descriptors[0]?.fd ?? -1);
  copy.signal(2n);
  t.is(event.take(), 2n);
  reply.descriptors[0]?.close();
});

test('rejects with ERR_PEER_CLOSED when the other process is killed', async (t) => {
  const { socket } = startPeer(t, 'die');
  const waiting = socket.receive(4);
  await socket.send(bytes('x'));
  await rejectsCode(t, waiting, 'ERR_PEER_CLOSED');
  t.is(await socket.receive(1), undefined);
});

test('a waiting receive keeps its process alive until the stream ends', async (t) => {
  const { child, socket } = startPeer(t, 'count');
  await socket.send(bytes('ping'));
  await received(socket, 4);
  for (let turns = 0; turns < 50; turns++) await turn();
  t.is(child.exitCode, null);
  const exited = once(child, 'exit');
  socket.close();
  t.deepEqual(await exited, [0, null]);
});

test.serial('a thousand messages with descriptors leave none open in either process', async (t) => {
  const { child, socket } = startPeer(t, 'count');
  let output = '';
  child.stdout?.on('data', (data: Buffer) => (output += data.toString()));
  using event = EventFd.create();
  await socket.send(bytes('ping'));
  await received(socket, 4);
  const before = openFiles().length;
  for (let round = 0; round < 1000; round++) {
    await socket.send(bytes('ping'), { descriptors: [event, event] });
    const { descriptors } = await received(socket, 4);
    t.is(descriptors.length, 2);
    for (const descriptor of descriptors) descriptor.close();
  }
  t.is(openFiles().length, before);
  const closed = once(child, 'close');
  socket.close();
  await closed;
  const counts = JSON.parse(output) as { before: number; after: number };
  t.true(counts.after <= counts.before + 2, output); // the watcher's thread has two
});

test('sends many messages, also if the queue of the peer holds only some', async (t) => {
  const [one, other] = pair(t);
  using event = EventFd.create();
  const count = 2000;
  const words = new BigUint64Array(count * MESSAGE_WORDS);
  for (let index = 0; index < count; index++) {
    words.set([10n, index % 7 === 0 ? BigInt(event.fd) : NO_DESCRIPTOR], index * MESSAGE_WORDS);
  }
  const all = new Uint8Array(count * 10).map((_, at) => at / 10);
  const sending = sendMessages(one, all, words);
  for (let index = 0; index < count; index++) {
    const { bytes: found, descriptors } = await received(other, 10);
    t.deepEqual(found, new Uint8Array(10).fill(index));
    t.is(descriptors.length, index % 7 === 0 ? 1 : 0);
    for (const descriptor of descriptors) descriptor.close();
  }
  await sending;
});

test('continues a message that was sent in part without its descriptor', async (t) => {
  const [one, other] = pair(t);
  const length = 1 << 21;
  const words = BigUint64Array.of(BigInt(length), BigInt(one.fd), 3n, BigInt(one.fd));
  const sending = sendMessages(one, new Uint8Array(length + 3).fill(5), words);
  const first = await received(other, length);
  const second = await received(other, 3);
  await sending;
  t.deepEqual([first.descriptors.length, second.descriptors.length], [1, 1]);
  for (const { descriptors } of [first, second]) descriptors[0]?.close();
});

test('ends its direction, and still receives', async (t) => {
  const [one, other] = pair(t);
  await one.send(bytes('last'));
  one.end();
  one.end();
  await rejectsCode(t, one.send(bytes('late')), 'ERR_PEER_CLOSED');
  t.is(text(await received(other, 4)), 'last');
  t.is(await other.receive(1), undefined);
  await other.send(bytes('reply'));
  t.is(text(await received(one, 5)), 'reply');
  one.close();
  one.end();
});

test('an end rejects sends that wait', async (t) => {
  const [one] = pair(t);
  const sending = one.send(new Uint8Array(1 << 22));
  one.end();
  await rejectsCode(t, sending, 'ERR_PEER_CLOSED');
});
