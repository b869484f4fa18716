/**
 * Finds the interfaces of default routes and of routes through gateways.
 */
import type { Machine } from '../machine.ts';
import type { SysFiles } from '../sys-files.ts';

/** Flags of a route (Linux, include/uapi/linux/route.h). */
const UP = 0x1;
const GATEWAY = 0x2;
const DEFAULTS: ReadonlySet<unknown> = new Set(['default', '0.0.0.0/0', '::/0']);

/** An interface with a default route or a route through a gateway. @internal */
export interface RouteUse {
  readonly interface: string;
  /** Whether a route is the default route. Otherwise it has a gateway, such as the route below a tunnel. */
  readonly isDefault: boolean;
}

interface Hop {
  readonly name: string;
  readonly isDefault: boolean;
  readonly hasGateway: boolean;
}

/**
 * Finds the routes, each interface once. Searches all tables if `ip` exists, or else the main table of /proc.
 *
 * @internal
 */
export function importantRoutes({ roots, proc }: Machine): RouteUse[] {
  const found = new Map<string, boolean>();
  for (const { name, isDefault, hasGateway } of [...hopsOfProc(proc), ...hopsOfList(roots.routes)]) {
    if (isDefault || hasGateway) found.set(name, isDefault || found.get(name) === true);
  }
  return [...found].map(([name, isDefault]) => ({ interface: name, isDefault }));
}

/** Reads /proc/net/route and /proc/net/ipv6_route. */
function hopsOfProc(proc: SysFiles): Hop[] {
  const lines = (file: string): string[][] => (proc.text(file) ?? '').split('\n').map((line) => line.split(/\s+/));
  const hops = [
    // Iface Destination Gateway Flags RefCnt Use Metric Mask …
    ...lines('net/route')
      .slice(1)
      .map(([name = '', destination, , flags = '', , , , mask]) => ({
        name,
        flags: Number.parseInt(flags, 16),
        isDefault: destination === '00000000' && mask === '00000000',
      })),
    // destination length source length gateway metric references uses flags interface
    ...lines('net/ipv6_route').map(([destination = '', length, , , , , , , flags = '', name = '']) => ({
      name,
      flags: Number.parseInt(flags, 16),
      isDefault: /^0{32}$/.test(destination) && length === '00',
    })),
  ];
  return hops
    .filter(({ flags }) => (flags & UP) !== 0)
    .map(({ name, flags, isDefault }) => ({ name, isDefault, hasGateway: (flags & GATEWAY) !== 0 }));
}

/** A route of `ip`, or one of its next hops. */
interface ListedHop {
  readonly dev?: unknown;
  readonly gateway?: unknown;
  readonly via?: unknown;
}

interface ListedRoute extends ListedHop {
  /** Kind of route; missing for `unicast`. */
  readonly type?: unknown;
  readonly dst?: unknown;
  readonly nexthops?: unknown;
}

/** @param list JSON of another program, which is not trusted */
function hopsOfList(list: string | undefined): Hop[] {
  return objectsOf<ListedRoute>(parsed(list)).flatMap((route) => {
    if (route.type !== undefined && route.type !== 'unicast') return [];
    const isDefault = DEFAULTS.has(route.dst);
    return [route, ...objectsOf<ListedHop>(route.nexthops)].flatMap(({ dev, gateway, via }) =>
      typeof dev === 'string' ? [{ name: dev, isDefault, hasGateway: (gateway ?? via) !== undefined }] : [],
    );
  });
}

function objectsOf<T extends object>(value: unknown): T[] {
  const list: unknown[] = Array.isArray(value) ? value : [];
  return list.filter((each): each is T => typeof each === 'object' && each !== null);
}

function parsed(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return undefined; // `ip` without -json, as in BusyBox
  }
}
