/**
 * Calls of sockets and received descriptors.
 */
import type { ExecutionContext } from 'ava';
import { EventFd, UnixSocket } from '../../../ts/index.ts';
import { type Calls, options } from '../values.ts';

export function socketCalls(t: ExecutionContext): Record<string, Calls> {
  const [socket, other] = UnixSocket.pair();
  const [pending] = UnixSocket.pair();
  t.teardown(() => [socket, other, pending].forEach((each) => each.close()));
  const message = Uint8Array.of(1);
  return {
    'UnixSocket.connect': {
      path: (value) => UnixSocket.connect(value),
      ...options({ signal: undefined }, (given) => UnixSocket.connect('/nonexistent', given)),
    },
    'UnixSocket.fromFd': { fd: (value) => UnixSocket.fromFd(value).close() },
    'UnixSocket#send': {
      bytes: (value) => socket.send(value),
      ...options({ descriptors: [], signal: undefined }, (given) => socket.send(message, given)),
    },
    'UnixSocket#receive': {
      length: async (value) => {
        await other.send(message);
        return socket.receive(value, { signal: AbortSignal.timeout(1) }).catch((error: unknown) => {
          if (error instanceof Error && error.name === 'TimeoutError') return;
          throw error;
        });
      },
      ...options({ signal: undefined }, async (given) => {
        await other.send(message);
        return socket.receive(1, given);
      }),
    },
    'EventFd.fromFd': { fd: (value) => EventFd.fromFd(value).close() },
  };
}
