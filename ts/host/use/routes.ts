/**
 * The interfaces by which this machine reaches others beyond its links: /proc/net/route and /proc/net/ipv6_route.
 */
import type { SysFiles } from '../sys-files.ts';

/** Flags of a route (Linux, include/uapi/linux/route.h). */
const UP = 0x1;
const GATEWAY = 0x2;

/** An interface with a route that matters. @internal */
export interface RouteUse {
  readonly interface: string;
  /** Else one by way of a gateway: what a tunnel goes through, where the default route goes into a tunnel. */
  readonly isDefault: boolean;
}

/** Of the main table. Each interface once. @internal */
export function importantRoutes(proc: SysFiles): RouteUse[] {
  const found = new Map<string, boolean>();
  const note = (name: string, flags: number, isDefault: boolean): void => {
    if ((flags & UP) === 0) return;
    if (isDefault || (flags & GATEWAY) !== 0) found.set(name, isDefault || found.get(name) === true);
  };
  for (const line of (proc.text('net/route') ?? '').split('\n')) {
    // Iface Destination Gateway Flags RefCnt Use Metric Mask …
    const [name = '', destination, , flags = '', , , , mask] = line.split(/\s+/);
    note(name, Number.parseInt(flags, 16), destination === '00000000' && mask === '00000000');
  }
  for (const line of (proc.text('net/ipv6_route') ?? '').split('\n')) {
    // destination length source length gateway metric references uses flags interface
    const [destination = '', length, , , , , , , flags = '', name = ''] = line.split(/\s+/);
    note(name, Number.parseInt(flags, 16), /^0{32}$/.test(destination) && length === '00');
  }
  return [...found].map(([name, isDefault]) => ({ interface: name, isDefault }));
}
