/**
 * At which addresses of this machine somebody is logged in over the network.
 */
import { SocketAddress, isIPv4, isIPv6 } from 'node:net';
import type { Machine } from '../machine.ts';

/** A connection that is established (Linux, include/net/tcp_states.h). */
const ESTABLISHED = '01';
/** Programs whose connections are logins. OpenSSH 9.8 gave those of a session a name of their own. */
const SERVERS = /^(sshd(-session)?|dropbear|telnetd|in\.telnetd)$/;

/**
 * Addresses of this machine that logins go to: that of SSH_CONNECTION, and those of all connections that an SSH server has.
 * sudo drops the variable, and in a terminal multiplexer it may be an old one.
 *
 * @internal
 */
export function loginAddresses({ roots, proc, openFiles }: Machine): string[] {
  const [, , server = ''] = roots.sshConnection?.split(' ') ?? [];
  const sockets = openFiles.filter(({ program, file }) => SERVERS.test(program) && file.startsWith('socket:'));
  const inodes = new Set(sockets.map(({ file }) => /^socket:\[(\d+)\]$/.exec(file)?.[1]));
  const connected = ['tcp', 'tcp6'].flatMap((name) =>
    (proc.text(`net/${name}`) ?? '').split('\n').flatMap((line) => {
      // sl local remote state tx:rx tr:tm retransmits uid timeout inode (proc_net_tcp.rst)
      const [, local = '', , state, , , , , , inode] = line.trim().split(/\s+/);
      return state === ESTABLISHED && inodes.has(inode ?? '') ? (addressOf(local) ?? []) : [];
    }),
  );
  const found = [server, ...connected].flatMap((address) => sameForm(address) ?? []);
  return [...new Set(found)];
}

/** `0100007F:0016`: words of four bytes as the processor has them, which on x86-64 and arm64 is with the last byte first. */
function addressOf(text: string): string | undefined {
  const digits = /^([0-9a-f]{8}|[0-9a-f]{32}):[0-9a-f]{4}$/i.exec(text)?.[1];
  if (digits === undefined) return undefined;
  const bytes = Buffer.from(digits, 'hex').swap32();
  if (bytes.length === 4) return bytes.join('.');
  return bytes.toString('hex').match(/.{4}/g)?.join(':');
}

/** An address in its one form: without zone, IPv4 as such; `undefined` for what is none. @internal */
export function sameForm(text: string): string | undefined {
  if (isIPv4(text)) return text;
  if (!isIPv6(text)) return undefined;
  return new SocketAddress({ address: text, family: 'ipv6' }).address.replace(/^::ffff:(?=\d+\.)/, '');
}
