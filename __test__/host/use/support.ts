/**
 * A machine of text: /sys, /proc and /dev as folders.
 *
 * PCI functions are lines of describe.ts. All else is entries of expand.ts below `[sys/…]`, `[proc/…]` and `[dev/…]`.
 */
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { type Machine, type MachineRoots, readMachine } from '../../../ts/host/machine.ts';
import { usesOf } from '../../../ts/host/use/uses.ts';
import { describeMachine } from '../../support/sysfs/describe.ts';
import { expandTree } from '../../support/sysfs/expand.ts';

export interface Wish {
  readonly pci: string;
  readonly rest?: string;
  readonly sshConnection?: string;
  readonly addresses?: Readonly<Record<string, readonly string[]>>;
  /** The output of `ip -json route show table all`. */
  readonly routes?: unknown;
  /** The interface of the kernel's route to an address. */
  readonly interfaceTo?: Readonly<Record<string, string>>;
}

export function rootsOf(
  t: ExecutionContext,
  { pci, rest = '', sshConnection, addresses = {}, routes, interfaceTo = {} }: Wish,
): MachineRoots {
  const sys = describeMachine(pci).replaceAll(/^\[/gm, '[sys/');
  const root = expandTree(t, `${sys}\n[proc]\nversion = Linux\n[dev]\nnull =\n${rest}`);
  return {
    sys: join(root, 'sys'),
    proc: join(root, 'proc'),
    dev: join(root, 'dev'),
    sshConnection,
    interfaceAddresses: new Map(Object.entries(addresses)),
    routes: routes === undefined ? undefined : JSON.stringify(routes),
    interfaceTo: (address) => interfaceTo[address],
  };
}

export function machineOf(t: ExecutionContext, wish: Wish): Machine {
  return readMachine(rootsOf(t, wish));
}

/** The host's uses of a function of the first domain. */
export function uses(machine: Machine, address: string): string[] {
  const device = machine.host.functions.get(`0000:${address}`);
  if (device === undefined) throw new Error(`nothing at ${address}`);
  return usesOf(machine, device).map(({ text }) => text);
}

/** Entries of a block device: its number, its place below /sys/devices, and other files of its folder. */
export function block(number: string, place: string, ...entries: string[]): string {
  const name = place.split('/').at(-1) ?? '';
  return `[sys/devices/${place}]
size = 1
${entries.join('\n')}
[sys/class/block]
${name} -> ../../devices/${place}
[sys/dev/block]
${number} -> ../../devices/${place}
`;
}

/** Entries of a network interface, which may have others below it. */
export function network(place: string, ...below: string[]): string {
  const name = place.split('/').at(-1) ?? '';
  return `[sys/devices/${place}]
mtu = 1500
${below.map((each) => `lower_${each} -> ../${each}`).join('\n')}
[sys/class/net]
${name} -> ../../devices/${place}
`;
}

/** Mounts by number, place, type and source, with options of the file system. */
export function mounts(
  ...list: [number: string, place: string, type: string, source: string, options?: string][]
): string {
  const lines = list.map(
    ([number, place, type, source, options = 'rw'], index) =>
      `${index + 20} 1 ${number} / ${place} rw,relatime shared:1 - ${type} ${source} ${options}`,
  );
  return `[proc/self]\nmountinfo = ${lines.join('\\n')}\n`;
}
