/**
 * The matrix of some devices, and which devices it is of when nobody names them.
 */
import { readArray } from '../../arguments.ts';
import { isOnCard } from '../chipset.ts';
import { isVfioDriver } from '../drivers.ts';
import { evaluateHost } from '../host-argument.ts';
import type { Host, PciFunction } from '../model.ts';
import { bypassesOf } from './bypasses.ts';
import { cellOf } from './cell.ts';
import { HostBridges } from './host-bridges.ts';
import type { MatrixParts, PeerMatrix } from './model.ts';
import { Paths } from './paths.ts';
import { Readiness } from './readiness.ts';
import { TargetBars } from './target-bars.ts';

/**
 * For each ordered pair of devices, whether DMA of the one reaches the other, and why. How that is reasoned is told in
 * cell.ts.
 *
 * @param devices addresses as {@link Host.functions} has them; what isn't there is left out
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for what is not a host, or not an array
 */
export function peerMatrix(host: Host, devices: readonly string[]): PeerMatrix {
  const addresses = readArray(devices, 'devices');
  return evaluateHost(host, (one) => {
    const { cells, bypasses, ...parts } = matrixParts(one, addresses);
    return { ...parts, cells: [...cells], bypasses: [...bypasses] };
  });
}

/** The matrix as {@link peerMatrix} makes it, part by part. Each iterable can be read more than once. @internal */
export function matrixParts(host: Host, devices: readonly string[]): MatrixParts {
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
 * Devices that a matrix is worth looking at of: those that VFIO has, if it has two or more; else all that do DMA for a
 * living: storage, network, display, accelerators, serial buses, whatever has no class, and cards of all classes, such
 * as NVSwitches and FPGAs. Bridges, and what a chipset is made of, are none of them.
 *
 * @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` for what is not a host
 */
export function peerCandidates(host: Host): string[] {
  return evaluateHost(host, (one) => {
    const all = endpoints(one);
    const assigned = all.filter(({ driver }) => isVfioDriver(driver));
    const chosen = assigned.length >= 2 ? assigned : all.filter(doesDma);
    return chosen.map(({ address }) => address);
  });
}

/** Devices that somebody may want to assign: those that VFIO has, and all that do DMA for a living. @internal */
export function assignable(host: Host): string[] {
  return endpoints(host)
    .filter((each) => isVfioDriver(each.driver) || doesDma(each))
    .map(({ address }) => address);
}

function endpoints({ functions }: Host): PciFunction[] {
  return [...functions.values()].filter((each) => each.bridge === undefined);
}

/** Base classes (PCI Code and ID Assignment Specification): of 0x0c the serial buses USB (03) and Fibre Channel (04) alone. */
function doesDma(device: PciFunction): boolean {
  const { classCode, physicalFunction } = device;
  if (classCode === 'unknown' || physicalFunction !== undefined || isOnCard(device)) return true;
  const base = classCode >> 16;
  if (base === 0x0c) return [0x03, 0x04, 0x06].includes((classCode >> 8) & 0xff);
  return [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x0b, 0x0d, 0x12, 0xff].includes(base);
}
