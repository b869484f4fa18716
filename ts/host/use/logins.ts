/**
 * Finds the addresses of this machine that network logins use.
 */
import type { Machine } from '../machine.ts';
import { normalizeIp } from './connections.ts';

/** Login servers. OpenSSH 9.8 and later serve a session by sshd-session. */
const SERVERS = /^(sshd(-session)?|dropbear|telnetd|in\.telnetd)$/;

/**
 * Returns local addresses of logins: of SSH_CONNECTION and of all connections of login servers.
 *
 * SSH_CONNECTION alone is not enough: sudo drops it, and in a terminal multiplexer it can be stale.
 *
 * @internal
 */
export function loginAddresses({ roots, connections, openFiles }: Machine): string[] {
  const login = normalizeIp(roots.sshConnection?.split(' ')[2] ?? '');
  const sockets = openFiles.filter(({ program, file }) => SERVERS.test(program) && file.startsWith('socket:'));
  const inodes = new Set(sockets.map(({ file }) => /^socket:\[(\d+)\]$/.exec(file)?.[1]));
  const connected = connections.filter(({ inode }) => inodes.has(inode)).map(({ local }) => local);
  return [...new Set(login === undefined ? connected : [login, ...connected])];
}
