/**
 * Gathers the facts that all findings are derived from.
 */
import { PeerDmaError } from '../errors.ts';
import { requireBigint } from '../number-types.ts';
import { readHostOrEmpty } from '../host/read-host.ts';
import { SysFiles } from '../host/sys-files.ts';
import { type Machine, machineOf, thisMachine } from '../host/machine.ts';
import type { HostMachine, PciFunction, UnknownFact } from '../host/model.ts';
import { type SystemFacts, type SystemRoots, readSystem } from '../host/system/read-system.ts';
import type { Use } from '../host/use/model.ts';
import { usesOf } from '../host/use/uses.ts';
import { type Probes, probe } from './probe.ts';
import { valueText } from '../value-text.ts';

/** @internal */
export interface Facts {
  readonly host: HostMachine;
  readonly system: SystemFacts;
  /** Results of opening /dev/vfio/vfio and /dev/iommu; unknown for a recorded machine. */
  readonly probes: Probes | UnknownFact;
  /** RAM of the guest in bytes. */
  readonly ram: bigint | undefined;
  /** Whether open files of all users' processes could be read. */
  readonly seesAllProcesses: boolean;
  /** Returns the uses of a device by the host; `undefined` for a recorded machine. */
  readonly usesOf?: ((device: PciFunction) => readonly Use[]) | undefined;
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` if `ram` is not positive or `sysfs` is not a folder @internal */
export function gatherFacts(sysfs: string | undefined, ram: bigint | undefined): Facts {
  if (ram !== undefined) requireBigint(ram, 'ram');
  if (ram !== undefined && ram <= 0n) {
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
    // Root of a user namespace cannot read open files of processes outside of it.
    seesAllProcesses: process.geteuid?.() === 0 && system.inUserNamespace !== true,
    usesOf: sysfs === undefined ? usesHere(host) : undefined,
  };
}

/** Finds uses of devices on this machine, which is read at the first call. */
function usesHere(host: HostMachine): (device: PciFunction) => readonly Use[] {
  let machine: Machine | undefined;
  return (device) => usesOf((machine ??= machineOf(thisMachine(), host)), device);
}
