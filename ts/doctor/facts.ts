/**
 * All that the doctor goes by. Findings are made of these facts alone.
 */
import { PeerDmaError } from '../errors.ts';
import { readHostOrEmpty } from '../host/read-host.ts';
import { SysFiles } from '../host/sys-files.ts';
import { type Machine, machineOf, thisMachine } from '../host/machine.ts';
import type { Host, PciFunction, Unknown } from '../host/model.ts';
import { type SystemFacts, type SystemRoots, readSystem } from '../host/system/read-system.ts';
import type { Use } from '../host/use/model.ts';
import { usesOf } from '../host/use/uses.ts';
import { type Probes, probe } from './probe.ts';
import { valueText } from '../value-text.ts';

/** @internal */
export interface Facts {
  readonly host: Host;
  readonly system: SystemFacts;
  /** What the kernel answered; unknown for a machine that this one only has a recording of. */
  readonly probes: Probes | Unknown;
  /** Bytes of RAM that a guest is to have. */
  readonly ram: bigint | undefined;
  /** Whether processes of all users could be looked at. */
  readonly seesAllProcesses: boolean;
  /** What the host uses a device for; `undefined` for a recording. */
  readonly usesOf?: ((device: PciFunction) => readonly Use[]) | undefined;
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function gatherFacts(sysfs: string | undefined, ram: bigint | undefined): Facts {
  if (ram !== undefined && (typeof ram !== 'bigint' || ram <= 0n)) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `RAM is a number of bytes above 0, not ${valueText(ram)}`);
  }
  const roots: SystemRoots = sysfs === undefined ? { sys: '/sys', top: '/' } : { sys: sysfs, top: undefined };
  if (!new SysFiles(roots.sys).isFolder('')) {
    throw new PeerDmaError(
      'ERR_INVALID_ARGUMENT',
      `${valueText(roots.sys)} has no bus/pci/devices: it is not a folder. Name a copy of /sys`,
    );
  }
  const host = readHostOrEmpty(roots.sys);
  const system = readSystem(roots, host);
  return {
    host,
    system,
    probes: sysfs === undefined ? probe() : 'unknown',
    ram,
    // Root of a user namespace does not see what processes outside it have open.
    seesAllProcesses: process.geteuid?.() === 0 && system.inUserNamespace !== true,
    usesOf: sysfs === undefined ? usesHere(host) : undefined,
  };
}

/** Uses of devices on this machine, which is read once, for the first device. */
function usesHere(host: Host): (device: PciFunction) => readonly Use[] {
  let machine: Machine | undefined;
  return (device) => usesOf((machine ??= machineOf(thisMachine(), host)), device);
}
