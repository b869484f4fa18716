/**
 * The TCP connections of this machine: /proc/net/tcp and tcp6 (Linux, Documentation/networking/proc_net_tcp.rst).
 */
import { SocketAddress, isIPv4, isIPv6 } from 'node:net';
import type { SysFiles } from '../sys-files.ts';

/** A connection that is established (Linux, include/net/tcp_states.h). */
const ESTABLISHED = '01';

/** An established connection, with addresses as {@link sameForm} gives them. @internal */
export interface Connection {
  readonly local: string;
  readonly remote: string;
  readonly remotePort: number;
  /** Number of its socket in `socket:[INODE]`; 0 for one that the kernel opened. */
  readonly inode: string;
}

/** All connections that are established. @internal */
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
 * `0100007F:0016`: words of four bytes as the processor has them, which on x86-64 and arm64 is with the last byte
 * first.
 */
function addressOf(text: string): string | undefined {
  const digits = /^([0-9a-f]{8}|[0-9a-f]{32}):[0-9a-f]{4}$/i.exec(text)?.[1];
  if (digits === undefined) return undefined;
  const bytes = Buffer.from(digits, 'hex').swap32();
  if (bytes.length === 4) return bytes.join('.');
  return sameForm(bytes.toString('hex').match(/.{4}/g)?.join(':') ?? '');
}

/** An address in its one form: without zone, IPv4 as such; `undefined` for what is none. @internal */
export function sameForm(text: string): string | undefined {
  if (isIPv4(text)) return text;
  if (!isIPv6(text)) return undefined;
  return new SocketAddress({ address: text, family: 'ipv6' }).address.replace(/^::ffff:(?=\d+\.)/, '');
}
