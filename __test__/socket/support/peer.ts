/**
 * The other process of a socket test, with the socket as descriptor 3: `peer.ts HOW`.
 *
 * - `echo`: sends every message of 4 bytes back with its descriptors, until the stream ends
 * - `count`: as `echo`, then reports the number of its open descriptors before and after as JSON
 * - `die`: reads a byte and is killed in the middle of its reply
 * - `wait`: waits for a message that never comes
 */
import { closeSync } from 'node:fs';
import { UnixSocket } from '../../../ts/index.ts';
import { openFiles } from '../../support/open-files.ts';

const how = process.argv[2];
const socket = UnixSocket.fromFd(3);
closeSync(3);
const before = openFiles().length;
if (how === 'die') {
  await socket.receive(1);
  await socket.send(Uint8Array.of(1, 2));
  process.kill(process.pid, 'SIGKILL');
}
for (;;) {
  const message = await socket.receive(4);
  if (message === undefined) break;
  await socket.send(message.bytes, { descriptors: message.descriptors });
  for (const descriptor of message.descriptors) descriptor.close();
}
if (how === 'count') console.log(JSON.stringify({ before, after: openFiles().length }));
socket.close();
