/**
 * Finds the PCI functions and interfaces of remote storage: network file systems and disks.
 */
import type { Machine } from '../machine.ts';
import { normalizeIp } from './connections.ts';
import { interfacesBelow, interfacesWith } from './interfaces.ts';
import type { MountedFrom } from './mounts.ts';

/** The port of NBD servers (IANA). */
const NBD_PORT = 10809;

/** IP addresses of both ends of a storage connection. */
interface Ends {
  /** Addresses of this machine. */
  readonly local: readonly string[];
  /** Addresses of servers. */
  readonly remote: readonly string[];
}

/**
 * Maps the functions of a remote file system to their interfaces; empty for a local file system.
 *
 * @internal
 */
export function functionsOfMount(machine: Machine, mount: MountedFrom): Map<string, string> {
  return functionsBetween(machine, endsOfMount(mount));
}

/**
 * Maps the functions of a remote disk to their interfaces: iSCSI, NBD, and NVMe over TCP or RDMA.
 *
 * @param path parts of the disk's path below /sys/devices
 * @param controllers names of its NVMe controllers
 * @internal
 */
export function functionsOfRemoteDisk(
  machine: Machine,
  name: string,
  path: readonly string[],
  controllers: readonly string[],
): Map<string, string> {
  const session = path.findIndex((part) => /^session\d+$/.test(part));
  const ends = [
    ...(session === -1 ? [] : [endsOfSession(machine, path[session] ?? '', path[session - 1] ?? '')]),
    ...(/^nbd\d+$/.test(name) ? [endsOfNbd(machine, name)] : []),
    ...controllers.map((controller) => endsOfController(machine, controller)),
  ];
  const { local, remote } = {
    local: ends.flatMap((each) => each.local),
    remote: ends.flatMap((each) => each.remote),
  };
  return functionsBetween(machine, { local, remote });
}

/** Reads mount options. NFS, SMB and Ceph have the server's address, NFS also the client's (nfs(5), mount.cifs(8)). */
function endsOfMount({ type, options }: MountedFrom): Ends {
  if (!/^(nfs4?|cifs|smb3|ceph)$/.test(type)) return { local: [], remote: [] };
  const values = (names: RegExp): string[] =>
    options.split(',').flatMap((option) => {
      const [name = '', value = ''] = option.split('=', 2);
      return names.test(name) ? value.split('/').flatMap(addressAlone) : [];
    });
  return { local: values(/^clientaddr$/), remote: values(/^(addr|mountaddr|mon_addr)$/) };
}

/**
 * Reads an iSCSI session. Sources: drivers/scsi/scsi_transport_iscsi.c, iscsi_tcp.c (`iscsi_sw_tcp_host_get_param`).
 */
function endsOfSession({ sys }: Machine, session: string, host: string): Ends {
  const prefix = `connection${session.slice('session'.length)}:`;
  const connections = sys.names('class/iscsi_connection').filter((each) => each.startsWith(prefix));
  const file = (path: string): string[] => addressAlone(sys.word(path) ?? '');
  return {
    local: /^host\d+$/.test(host) ? file(`class/iscsi_host/${host}/ipaddress`) : [],
    remote: connections.flatMap((each) => [
      ...file(`class/iscsi_connection/${each}/address`),
      ...file(`class/iscsi_connection/${each}/persistent_address`),
    ]),
  };
}

/**
 * Finds the connections of an NBD disk by the process that `pid` names (Linux, drivers/block/nbd.c).
 *
 * If that process has passed its sockets to the kernel and ended, all connections to the NBD port count.
 */
function endsOfNbd({ sys, connections, openFiles }: Machine, name: string): Ends {
  const pid = sys.word(`class/block/${name}/pid`);
  if (pid === undefined) return { local: [], remote: [] };
  const files = new Set(openFiles.filter(({ process }) => process === Number(pid)).map(({ file }) => file));
  const own = connections.filter(({ inode }) => files.has(`socket:[${inode}]`));
  const chosen = own.length > 0 ? own : connections.filter(({ remotePort }) => remotePort === NBD_PORT);
  return { local: chosen.map(({ local }) => local), remote: [] };
}

/**
 * Parses `traddr=10.0.0.9,trsvcid=4420,src_addr=10.0.0.5`. Linux writes it in drivers/nvme/host/sysfs.c,
 * `nvme_sysfs_show_address`. A local controller has a PCI address instead.
 */
function endsOfController({ sys }: Machine, controller: string): Ends {
  const parts = (sys.word(`class/nvme/${controller}/address`) ?? '').split(',').map((part) => part.split('=', 2));
  const values = (wanted: readonly string[]): string[] =>
    parts.flatMap(([name = '', value = '']) => (wanted.includes(name) ? addressAlone(value) : []));
  return { local: values(['host_traddr', 'src_addr']), remote: values(['traddr']) };
}

/** Removes the port of an address: `10.0.0.9:6789`, `[fe80::1]:6789`, `fe80::1%eth0`. */
function addressAlone(text: string): string[] {
  const alone = /^\[(.*)\](?::\d+)?$/.exec(text)?.[1] ?? text.replace(/^([\d.]+):\d+$/, '$1');
  return normalizeIp(alone) === undefined ? [] : [normalizeIp(alone) ?? ''];
}

/** Finds interfaces by the kernel's routes to servers, and by local addresses. */
function functionsBetween(machine: Machine, { local, remote }: Ends): Map<string, string> {
  if (local.length + remote.length === 0) return new Map();
  const connected = machine.connections.filter((each) => remote.includes(each.remote));
  const mine = new Set([...local, ...connected.map((each) => each.local)]);
  const names = new Set([
    ...[...mine].flatMap((address) => interfacesWith(machine, address)),
    ...remote.flatMap((address) => machine.roots.interfaceTo?.(address) ?? []),
  ]);
  return new Map([...names].flatMap((name) => [...interfacesBelow(machine, name)]));
}
