/**
 * Finds the network interfaces and PCI functions below an interface.
 */
import type { Machine } from '../machine.ts';
import type { SysFiles } from '../sys-files.ts';
import { normalizeIp } from './connections.ts';
import { functionsInPath } from './device-path.ts';

const INTERFACES = 'class/net';
/**
 * Datapath interface of Open vSwitch. All ports are linked below it, except internal ports, which are not linked.
 */
const OPEN_VSWITCH = 'ovs-system';
/** `type` in /sys (Linux, include/uapi/linux/if_arp.h). */
const ETHERNET = '1';
const PPP = '512';

/** Maps the PCI functions below an interface to their own interfaces. @internal */
export function interfacesBelow(machine: Machine, name: string): Map<string, string> {
  const found = new Map<string, string>();
  const visited = new Set<string>();
  const visit = (each: string): void => {
    if (each === '' || visited.has(each) || each.includes('/')) return;
    visited.add(each);
    const functions = functionsInPath(machine.sys.link(`${INTERFACES}/${each}`));
    for (const address of functions) found.set(address, each);
    for (const lower of functions.length > 0 ? linkedBelow(machine.sys, each) : allBelow(machine, each)) visit(lower);
  };
  visit(name);
  return found;
}

/** Returns interfaces with an address in the form of {@link normalizeIp}. @internal */
export function interfacesWith({ roots }: Machine, address: string): string[] {
  const found = [...roots.interfaceAddresses].filter(([, list]) => list.some((each) => normalizeIp(each) === address));
  return found.map(([name]) => name);
}

/**
 * Lower interfaces of bonds, bridges, VLANs and macvlans. Linux lists them in net/core/dev.c,
 * `netdev_adjacent_sysfs_add`.
 */
function linkedBelow(sys: SysFiles, name: string): string[] {
  return sys.names(`${INTERFACES}/${name}`).flatMap((entry) => (entry.startsWith('lower_') ? entry.slice(6) : []));
}

/** Lower interfaces of a virtual interface, including those without a link in /sys. */
function allBelow({ sys, proc }: Machine, name: string): string[] {
  const linked = linkedBelow(sys, name);
  if (linked.length > 0) return linked;
  const file = (entry: string): string | undefined => sys.word(`${INTERFACES}/${name}/${entry}`);
  const kind = /^DEVTYPE=(\w+)$/m.exec(sys.text(`${INTERFACES}/${name}/uevent`) ?? '')?.[1];
  if (kind === 'ppp' || file('type') === PPP || /^ppp\d+$/.test(name)) return pppoeInterfaces(proc);
  const attached = byIndex(sys, name);
  if (attached.length > 0) return attached;
  // /sys identifies an internal port of Open vSwitch only as an Ethernet interface without DEVTYPE.
  const mayBeInternalPort =
    kind === undefined && (file('type') ?? ETHERNET) === ETHERNET && file('tun_flags') === undefined;
  return mayBeInternalPort ? [OPEN_VSWITCH] : [];
}

/**
 * Finds the other interface of a tunnel or veth pair by its number (`iflink`). Also finds the bridge of a port.
 *
 * `iflink` of all other interfaces is their own number or 0.
 */
function byIndex(sys: SysFiles, name: string): string[] {
  const number = (each: string, file: string): string | undefined => sys.word(`${INTERFACES}/${each}/${file}`);
  const link = number(name, 'iflink');
  if (link === undefined || link === '0' || link === number(name, 'ifindex')) return [];
  const others = sys.names(INTERFACES).filter((each) => number(each, 'ifindex') === link);
  return others.flatMap((each) => [each, sys.linkName(`${INTERFACES}/${each}/master`) ?? '']);
}

/**
 * Returns the interfaces below all PPPoE sessions. The kernel does not report the PPP interface of a session (Linux,
 * drivers/net/ppp/pppoe.c: `pppoe_seq_show`).
 */
function pppoeInterfaces(proc: SysFiles): string[] {
  const lines = (proc.text('net/pppoe') ?? '').split('\n').slice(1);
  return lines.map((line) => line.trim().split(/\s+/).at(-1) ?? '');
}
