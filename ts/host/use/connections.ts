/**
 * Reads TCP connections: /proc/net/tcp and tcp6 (Linux, Documentation/networking/proc_net_tcp.rst).
 */
import { SocketAddress, isIPv4, isIPv6 } from 'node:net';
import type { SysFiles } from '../sys-files.ts';

/** State of an established connection (Linux, include/net/tcp_states.h). */
const ESTABLISHED = '01';

/** An established connection, with addresses in the form of {@link normalizeIp}. @internal */
export interface Connection {
  readonly local: string;
  readonly remote: string;
  readonly remotePort: number;
  /** Number of the socket in `socket:[INODE]`; 0 for a socket of the kernel. */
  readonly inode: string;
}

/** Reads all established connections. @internal */
export function readConnections(proc: SysFiles): Connection[] {
  return ['tcp', 'tcp6'].flatMap((name) =>
    (proc.text(`net/${name}`) ?? '').split('\n').flatMap((line) => {
      // sl local remote state tx:rx tr:tm retransmits uid timeout inode
      const [, local = '', remote = '', state, , , , , , inode = ''] = line.trim().split(/\s+/);
      if (state !== ESTABLISHED) return [];
      const [mine, other] = [addressOf(local), addressOf(remote)];
      if (mine === undefined || other === undefined) return [];
      return [{ local: mine, remote: other, remotePort: Number.parseInt(remote.slice(-4), 16), inode }];
    }),
  );
}

/**
 * Parses `0100007F:0016`. The address is in words of four bytes in the processor's order, little-endian on x86-64 and
 * arm64.
 */
function addressOf(text: string): string | undefined {
  const digits = /^([0-9a-f]{8}|[0-9a-f]{32}):[0-9a-f]{4}$/i.exec(text)?.[1];
  if (digits === undefined) return undefined;
  const bytes = Buffer.from(digits, 'hex').swap32();
  if (bytes.length === 4) return bytes.join('.');
  return normalizeIp(bytes.toString('hex').match(/.{4}/g)?.join(':') ?? '');
}

/** Normalizes an IP address: no zone, IPv4 in dotted form; `undefined` for other text. @internal */
export function normalizeIp(text: string): string | undefined {
  if (isIPv4(text)) return text;
  if (!isIPv6(text)) return undefined;
  return new SocketAddress({ address: text, family: 'ipv6' }).address.replace(/^::ffff:(?=\d+\.)/, '');
}
