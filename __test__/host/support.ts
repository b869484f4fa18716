/**
 * Reads described and recorded machines, and formats a matrix briefly.
 */
import type { ExecutionContext } from 'ava';
import { type HostMachine, type PeerCell, type PeerMatrix, type PciFunction, readHost } from '../../ts/host.ts';
import { type DescribeOptions, describeMachine } from '../support/sysfs/describe.ts';
import { expandTree, machine } from '../support/sysfs/expand.ts';

/** Reads a described machine of `machines/`. */
export function described(t: ExecutionContext, name: string, options?: DescribeOptions): HostMachine {
  return hostOf(t, machine(name), options);
}

/** A machine of a few lines. */
export function hostOf(t: ExecutionContext, text: string, options?: DescribeOptions): HostMachine {
  return readHost(expandTree(t, describeMachine(text, options)));
}

/** A recorded machine. */
export function recorded(t: ExecutionContext, name: string): HostMachine {
  return readHost(expandTree(t, machine(name)));
}

/** The function at an address of the first domain. */
export function at(host: HostMachine, address: string): PciFunction {
  const found = host.functions.get(`0000:${address}`);
  if (found === undefined) throw new Error(`nothing at ${address}`);
  return found;
}

export function cell(matrix: PeerMatrix, initiator: string, target: string): PeerCell {
  const [from, to] = [`0000:${initiator}`, `0000:${target}`];
  const found = matrix.cells.find((each) => each.initiator === from && each.target === to);
  if (found === undefined) throw new Error(`no cell ${from} ${to}`);
  return found;
}

export function codes(reasons: PeerCell['reasons']): string[] {
  return reasons.map(({ code }) => code);
}

/** A row for each initiator, `yes`, `host`, `no`, `?` or `-` for each target; `*` if prerequisites are missing. */
export function table({ devices, cells }: PeerMatrix): string[] {
  const words = { yes: 'yes', 'host-bridge': 'host', no: 'no', unknown: '?' };
  return devices.map((initiator) => {
    const row = devices.map((target) => {
      const found = cells.find((each) => each.initiator === initiator && each.target === target);
      return found === undefined ? '-' : `${words[found.verdict]}${found.prerequisites.length > 0 ? '*' : ''}`;
    });
    return `${initiator.slice(5)}: ${row.join(' ')}`;
  });
}
