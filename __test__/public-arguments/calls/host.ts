/**
 * Calls of what reads and judges hosts.
 */
import type { ExecutionContext } from 'ava';
import {
  type HostMachine,
  type PciFunction,
  bridgesAbove,
  childrenOf,
  diagnose,
  functionAt,
  nvidiaCliques,
  pciAddress,
  peerCandidates,
  peerCliques,
  peerMatrix,
  readHost,
} from '../../../ts/host.ts';
import { recorded } from '../../host/support.ts';
import { expandTree, machine } from '../../support/sysfs/expand.ts';
import { type Anything, type Calls, options } from '../values.ts';

export function hostCalls(t: ExecutionContext): Record<string, Calls> {
  const host = recorded(t, 'testbed');
  const all = peerCandidates(host);
  const [first = '', second = ''] = all;
  const root = expandTree(t, machine('testbed'));
  const matrix = peerMatrix(host, [first, second]);
  const uses: Record<string, (host: HostMachine) => unknown> = {
    bridgesAbove: (given) => bridgesAbove(given, functionAt(host, first)),
    childrenOf: (given) => childrenOf(given, first),
    functionAt: (given) => void functionAt(given, first),
    nvidiaCliques,
    peerCandidates,
    peerMatrix: (given) => peerMatrix(given, [first, second]),
  };
  const ofHost = (name: string): Calls => onHost(host, first, uses[name] ?? peerCandidates);
  return {
    bridgesAbove: { ...ofHost('bridgesAbove'), ...options({ parent: first }, (given) => bridgesAbove(host, given)) },
    childrenOf: { ...ofHost('childrenOf'), bridge: (value) => childrenOf(host, value) },
    functionAt: { ...ofHost('functionAt'), address: (value) => functionAt(host, value) },
    peerCandidates: ofHost('peerCandidates'),
    peerCliques: {
      ...options({ ...matrix }, peerCliques),
      ...options({ accept: ['yes'] }, (given) => peerCliques(matrix, given)),
      'one of accept': (value) => peerCliques(matrix, { accept: [value] }),
      'one of devices': (value) => peerCliques({ ...matrix, devices: [value, first] }),
      'one of cells': (value) => peerCliques({ ...matrix, cells: [value] }),
    },
    nvidiaCliques: {
      ...ofHost('nvidiaCliques'),
      ...options({ accept: ['yes'], devices: [first] }, (given) => nvidiaCliques(host, given)),
      'one of devices': (value) => nvidiaCliques(host, { devices: [value, first] }),
    },
    peerMatrix: {
      ...ofHost('peerMatrix'),
      devices: (value) => peerMatrix(host, value),
      'one of devices': (value) => peerMatrix(host, [value, first]),
    },
    pciAddress: { text: pciAddress },
    readHost: { root: readHost },
    diagnose: {
      ...options({ devices: [], ram: 0n, sysfs: root, open: false }, diagnose),
      'one of devices': (value) => diagnose({ devices: [value] }),
    },
  };
}

/** A host with one property, or one property of one of its functions, of another type. */
function onHost(host: HostMachine, address: string, use: (host: HostMachine) => unknown): Calls {
  const func = functionAt(host, address);
  const withFunction = (given: Anything): unknown =>
    use({ ...host, functions: new Map<string, PciFunction>(host.functions).set(address, given) });
  const inside = Object.entries(options({ ...func }, withFunction));
  return {
    ...options({ ...host }, use),
    ...Object.fromEntries(inside.map(([name, call]) => [`function ${name}`, call])),
  };
}
