/**
 * At which addresses of this machine somebody is logged in over the network.
 */
import type { Machine } from '../machine.ts';
import { sameForm } from './connections.ts';

/** Programs whose connections are logins. OpenSSH 9.8 gave those of a session a name of their own. */
const SERVERS = /^(sshd(-session)?|dropbear|telnetd|in\.telnetd)$/;

/**
 * Addresses of this machine that logins go to: that of SSH_CONNECTION, and those of all connections that an SSH server has.
 * sudo drops the variable, and in a terminal multiplexer it may be an old one.
 *
 * @internal
 */
export function loginAddresses({ roots, connections, openFiles }: Machine): string[] {
  const login = sameForm(roots.sshConnection?.split(' ')[2] ?? '');
  const sockets = openFiles.filter(({ program, file }) => SERVERS.test(program) && file.startsWith('socket:'));
  const inodes = new Set(sockets.map(({ file }) => /^socket:\[(\d+)\]$/.exec(file)?.[1]));
  const connected = connections.filter(({ inode }) => inodes.has(inode)).map(({ local }) => local);
  return [...new Set(login === undefined ? connected : [login, ...connected])];
}
