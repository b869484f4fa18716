/**
 * The network interfaces, and so the PCI functions, that an interface sends through.
 */
import type { Machine } from '../machine.ts';
import type { SysFiles } from '../sys-files.ts';
import { sameForm } from './connections.ts';
import { functionsInPath } from './device-path.ts';

const INTERFACES = 'class/net';
/**
 * Interface of the kernel's datapath of Open vSwitch: all its ports are below it, and internal ports are not linked
 * at all.
 */
const OPEN_VSWITCH = 'ovs-system';
/** `type` in /sys (Linux, include/uapi/linux/if_arp.h). */
const ETHERNET = '1';
const PPP = '512';

/** The functions that an interface needs, each with the interface that is its own. @internal */
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

/** Interfaces that have an address, which is in the form of {@link sameForm}. @internal */
export function interfacesWith({ roots }: Machine, address: string): string[] {
  const found = [...roots.interfaceAddresses].filter(([, list]) => list.some((each) => sameForm(each) === address));
  return found.map(([name]) => name);
}

/** Bonds, bridges, VLANs, macvlans link what is below them (Linux, net/core/dev.c: `netdev_adjacent_sysfs_add`). */
function linkedBelow(sys: SysFiles, name: string): string[] {
  return sys.names(`${INTERFACES}/${name}`).flatMap((entry) => (entry.startsWith('lower_') ? entry.slice(6) : []));
}

/** The same for a virtual interface, with those that no link in /sys names. */
function allBelow({ sys, proc }: Machine, name: string): string[] {
  const linked = linkedBelow(sys, name);
  if (linked.length > 0) return linked;
  const file = (entry: string): string | undefined => sys.word(`${INTERFACES}/${name}/${entry}`);
  const kind = /^DEVTYPE=(\w+)$/m.exec(sys.text(`${INTERFACES}/${name}/uevent`) ?? '')?.[1];
  if (kind === 'ppp' || file('type') === PPP || /^ppp\d+$/.test(name)) return pppoeInterfaces(proc);
  const attached = byIndex(sys, name);
  if (attached.length > 0) return attached;
  // An internal port of Open vSwitch is an Ethernet interface without DEVTYPE: /sys has no other sign of it.
  const mayBeInternalPort =
    kind === undefined && (file('type') ?? ETHERNET) === ETHERNET && file('tun_flags') === undefined;
  return mayBeInternalPort ? [OPEN_VSWITCH] : [];
}

/**
 * Tunnels and veth pairs have the number of another interface (`iflink`); all others have their own, or 0. The other
 * end of a veth pair may be a port of a bridge: that is its master.
 */
function byIndex(sys: SysFiles, name: string): string[] {
  const number = (each: string, file: string): string | undefined => sys.word(`${INTERFACES}/${each}/${file}`);
  const link = number(name, 'iflink');
  if (link === undefined || link === '0' || link === number(name, 'ifindex')) return [];
  const others = sys.names(INTERFACES).filter((each) => number(each, 'ifindex') === link);
  return others.flatMap((each) => [each, sys.linkName(`${INTERFACES}/${each}/master`) ?? '']);
}

/**
 * The interfaces below all PPPoE sessions: the kernel does not say to which PPP interface a session belongs (Linux,
 * drivers/net/ppp/pppoe.c: `pppoe_seq_show`).
 */
function pppoeInterfaces(proc: SysFiles): string[] {
  const lines = (proc.text('net/pppoe') ?? '').split('\n').slice(1);
  return lines.map((line) => line.trim().split(/\s+/).at(-1) ?? '');
}
