/**
 * Computes the peer-to-peer matrix, and its default devices.
 */
import { readArray } from '../../arguments.ts';
import { isOnCard } from '../chipset.ts';
import { isVfioDriver } from '../drivers.ts';
import { evaluateHost } from '../host-argument.ts';
import type { HostMachine, PciFunction } from '../model.ts';
import { bypassesOf } from './bypasses.ts';
import { cellOf } from './cell.ts';
import { HostBridges } from './host-bridges.ts';
import type { MatrixParts, PeerMatrix } from './model.ts';
import { Paths } from './paths.ts';
import { Readiness } from './readiness.ts';
import { TargetBars } from './target-bars.ts';

/**
 * Computes for each ordered pair of devices whether DMA of one reaches a BAR of the other, and why.
 *
 * @param devices addresses in the form of {@link HostMachine.functions}; others are left out
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if `host` is not a host or `devices` is not an array
 */
export function peerMatrix(host: HostMachine, devices: readonly string[]): PeerMatrix {
  const addresses = readArray(devices, 'devices');
  return evaluateHost(host, (one) => {
    const { cells, bypasses, ...parts } = matrixParts(one, addresses);
    return { ...parts, cells: [...cells], bypasses: [...bypasses] };
  });
}

/** Computes the matrix part by part as it is read. Each iterable can be read more than once. @internal */
export function matrixParts(host: HostMachine, devices: readonly string[]): MatrixParts {
  const addresses = new Set(devices);
  const functions = [...addresses].flatMap((address) => host.functions.get(address) ?? []);
  const shared = {
    host,
    paths: new Paths(host),
    readiness: new Readiness(host),
    hostBridges: new HostBridges(host),
    targetBars: new TargetBars(),
  };
  return {
    devices: functions.map(({ address }) => address),
    cells: {
      *[Symbol.iterator]() {
        for (const initiator of functions) {
          for (const target of functions) if (target !== initiator) yield cellOf(shared, initiator, target);
        }
      },
    },
    bypasses: {
      *[Symbol.iterator]() {
        for (const initiator of functions) yield* bypassesOf(shared.paths, initiator);
      },
    },
  };
}

/**
 * Returns the default devices for the matrix.
 *
 * These are the devices that are bound to VFIO, if there are two or more. Otherwise they are all devices that do DMA:
 * storage, network, display, accelerators, serial buses, devices of unknown class, and cards of all classes, such as
 * NVSwitches and FPGAs. Bridges and parts of the chipset are left out.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if the argument is not a host
 */
export function peerCandidates(host: HostMachine): string[] {
  return evaluateHost(host, (one) => {
    const all = endpoints(one);
    const assigned = all.filter(({ driver }) => isVfioDriver(driver));
    const chosen = assigned.length >= 2 ? assigned : all.filter(doesDma);
    return chosen.map(({ address }) => address);
  });
}

/** Returns candidates for assignment: devices that are bound to VFIO, and all that do DMA. @internal */
export function assignable(host: HostMachine): string[] {
  return endpoints(host)
    .filter((each) => isVfioDriver(each.driver) || doesDma(each))
    .map(({ address }) => address);
}

function endpoints({ functions }: HostMachine): PciFunction[] {
  return [...functions.values()].filter((each) => each.bridge === undefined);
}

/**
 * Decides by base class, and by subclass for serial buses (0x0c). Classes are in the PCI Code and ID Assignment
 * Specification.
 */
function doesDma(device: PciFunction): boolean {
  const { classCode, physicalFunction } = device;
  if (classCode === 'unknown' || physicalFunction !== undefined || isOnCard(device)) return true;
  const base = classCode >> 16;
  if (base === 0x0c) return [0x03, 0x04, 0x06].includes((classCode >> 8) & 0xff);
  return [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x0b, 0x0d, 0x12, 0xff].includes(base);
}
