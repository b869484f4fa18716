/**
 * The machine that is about to be changed: what is read of it besides /sys.
 */
import { spawnSync } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { readHost } from './read-host.ts';
import type { Host } from './model.ts';
import { SysFiles } from './sys-files.ts';
import { type Connection, readConnections } from './use/connections.ts';
import { type OpenFile, readOpenFiles } from './use/open-files.ts';

/** Lists in /proc grow with the machine: connections, mounts. */
const MOST_PROC_BYTES = 4 << 20;

/** Where a machine is looked at. Tests have folders of their own. @internal */
export interface MachineRoots {
  readonly sys: string;
  readonly proc: string;
  readonly dev: string;
  /** `SSH_CONNECTION` of the environment: addresses and ports of client and server. */
  readonly sshConnection: string | undefined;
  /** Addresses of this machine, by the names of network interfaces. */
  readonly interfaceAddresses: ReadonlyMap<string, readonly string[]>;
  /**
   * Routes of all tables as `ip -json route show table all` prints them; `undefined` where there is no such program.
   */
  readonly routes?: string | undefined;
  /** The interface that the kernel sends by to an IP address; `undefined` where that is not known. */
  readonly interfaceTo?: ((address: string) => string | undefined) | undefined;
}

/** `PATH` with the sbin folders, which it lacks for some users. @internal */
export function withSbin(): string {
  return `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;
}

/** A machine, read. @internal */
export interface Machine {
  readonly roots: MachineRoots;
  readonly host: Host;
  readonly sys: SysFiles;
  readonly proc: SysFiles;
  /** What processes have open of /dev, and sockets: of all processes for root, of the user's own for others. */
  readonly openFiles: readonly OpenFile[];
  /** Of the network namespace that this runs in. */
  readonly connections: readonly Connection[];
}

/** The one that this runs on. @internal */
export function thisMachine(): MachineRoots {
  const addresses = Object.entries(networkInterfaces()).map(
    ([name, list = []]) => [name, list.map(({ address }) => address)] as const,
  );
  return {
    sys: '/sys',
    proc: '/proc',
    dev: '/dev',
    sshConnection: process.env['SSH_CONNECTION'],
    interfaceAddresses: new Map(addresses),
    routes: runIp('-json', 'route', 'show', 'table', 'all'),
    interfaceTo: routeFinder(),
  };
}

/** Asks the kernel once for each address. */
function routeFinder(): (address: string) => string | undefined {
  const known = new Map<string, string | undefined>();
  return (address) => {
    if (!known.has(address)) known.set(address, /\bdev (\S+)/.exec(runIp('route', 'get', address) ?? '')?.[1]);
    return known.get(address);
  };
}

/** /proc/net/route has the first next hop of a route alone (Linux, net/ipv4/fib_trie.c: `fib_route_seq_show`). */
function runIp(...args: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync('ip', args, {
    encoding: 'utf8',
    env: { ...process.env, PATH: withSbin() },
    maxBuffer: MOST_PROC_BYTES,
  });
  return status === 0 ? stdout : undefined;
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` where there are no PCI devices @internal */
export function readMachine(roots: MachineRoots): Machine {
  return machineOf(roots, readHost(roots.sys));
}

/** A machine whose /sys has been read. @internal */
export function machineOf(roots: MachineRoots, host: Host): Machine {
  const proc = new SysFiles(roots.proc, MOST_PROC_BYTES);
  return {
    roots,
    host,
    sys: new SysFiles(roots.sys),
    proc,
    openFiles: readOpenFiles(proc),
    connections: readConnections(proc),
  };
}
