/**
 * A process that has one end of a pair of sockets.
 */
import type { ExecutionContext } from 'ava';
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { UnixSocket } from '../../../ts/index.ts';

const PROGRAM = fileURLToPath(new URL('peer.ts', import.meta.url));

/** Starts the program, and returns the process with this end of its socket. */
export function startPeer(t: ExecutionContext, how: string): { child: ChildProcess; socket: UnixSocket } {
  const [socket, theirs] = UnixSocket.pair();
  const args = ['--import=./scripts/typescript/register.mjs', PROGRAM, how];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit', theirs.fd] });
  theirs.close();
  t.teardown(() => {
    socket.close();
    child.kill('SIGKILL');
  });
  return { child, socket };
}
