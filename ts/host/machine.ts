/**
 * Reads a machine for a change of drivers: /sys, /proc, open files, connections and routes.
 */
import { spawnSync } from 'node:child_process';
import { networkInterfaces } from 'node:os';
import { readHost } from './read-host.ts';
import type { HostMachine } from './model.ts';
import { SysFiles } from './sys-files.ts';
import { type Connection, readConnections } from './use/connections.ts';
import { type OpenFile, readOpenFiles } from './use/open-files.ts';

/** Limit for files of /proc; lists of connections and mounts grow with the machine. */
const MAX_PROC_BYTES = 4 << 20;

/** Folders and values that a machine is read from. Tests pass their own. @internal */
export interface MachineRoots {
  readonly sys: string;
  readonly proc: string;
  readonly dev: string;
  /** `SSH_CONNECTION` of the environment: addresses and ports of client and server. */
  readonly sshConnection: string | undefined;
  /** Addresses of this machine, by the names of network interfaces. */
  readonly interfaceAddresses: ReadonlyMap<string, readonly string[]>;
  /** Routes of all tables as `ip -json route show table all` prints them, if the program exists. */
  readonly routes?: string | undefined;
  /** Returns the interface by which the kernel reaches an IP address; `undefined` if it is unknown. */
  readonly interfaceTo?: ((address: string) => string | undefined) | undefined;
}

/** `PATH` plus the sbin folders, which some users lack. @internal */
export function withSbin(): string {
  return `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin`;
}

/** A machine that was read. @internal */
export interface Machine {
  readonly roots: MachineRoots;
  readonly host: HostMachine;
  readonly sys: SysFiles;
  readonly proc: SysFiles;
  /** Open device files and sockets: of all processes for root, of the user's own processes otherwise. */
  readonly openFiles: readonly OpenFile[];
  /** Connections of this process's network namespace. */
  readonly connections: readonly Connection[];
}

/** The roots of the machine that this process runs on. @internal */
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

/** Caches the interface of each address. */
function routeFinder(): (address: string) => string | undefined {
  const known = new Map<string, string | undefined>();
  return (address) => {
    if (!known.has(address)) known.set(address, /\bdev (\S+)/.exec(runIp('route', 'get', address) ?? '')?.[1]);
    return known.get(address);
  };
}

/**
 * Runs `ip`: /proc/net/route lists only the first next hop of a route. The kernel's function is `fib_route_seq_show`
 * (net/ipv4/fib_trie.c).
 */
function runIp(...args: readonly string[]): string | undefined {
  const { status, stdout } = spawnSync('ip', args, {
    encoding: 'utf8',
    env: { ...process.env, PATH: withSbin() },
    maxBuffer: MAX_PROC_BYTES,
  });
  return status === 0 ? stdout : undefined;
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the machine has no PCI @internal */
export function readMachine(roots: MachineRoots): Machine {
  return machineOf(roots, readHost(roots.sys));
}

/** Reads the rest of a machine whose /sys was read. @internal */
export function machineOf(roots: MachineRoots, host: HostMachine): Machine {
  const proc = new SysFiles(roots.proc, MAX_PROC_BYTES);
  return {
    roots,
    host,
    sys: new SysFiles(roots.sys),
    proc,
    openFiles: readOpenFiles(proc),
    connections: readConnections(proc),
  };
}
