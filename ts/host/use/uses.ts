/**
 * All that the host uses a function for.
 */
import type { Machine } from '../machine.ts';
import type { PciFunction } from '../model.ts';
import { displayUses, keyboardUses } from './console.ts';
import { diskUses } from './disks.ts';
import type { Use } from './model.ts';
import { networkUses } from './network.ts';

/**
 * What would end if the function got another driver. Of a physical function also what its virtual functions are used for:
 * they go with it.
 *
 * @internal
 */
export function usesOf(machine: Machine, { address, virtualFunctions }: PciFunction): Use[] {
  const own = usesOfAlone(machine, address);
  const virtual = virtualFunctions?.addresses ?? [];
  if (virtual.length === 0) return own;
  const most = `${virtual.length} virtual ${virtual.length === 1 ? 'function' : 'functions'}`;
  return [
    ...own,
    { kind: 'virtual-functions', text: `has ${most} on, which go with it` },
    ...virtual.flatMap((each) =>
      usesOfAlone(machine, each).map(({ kind, text }): Use => ({ kind, text: `has ${each}, which ${text}` })),
    ),
  ];
}

function usesOfAlone(machine: Machine, address: string): Use[] {
  const found = machine.host.functions.get(address);
  return [
    ...diskUses(machine, address),
    ...networkUses(machine, address),
    ...(found === undefined ? [] : displayUses(machine, found)),
    ...keyboardUses(machine, address),
  ];
}
