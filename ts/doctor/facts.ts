/**
 * All that the doctor goes by. Findings are made of these facts alone.
 */
import { PeerDmaError } from '../errors.ts';
import { readHost } from '../host/read-host.ts';
import type { Host, Unknown } from '../host/model.ts';
import { type SystemFacts, type SystemRoots, readSystem } from '../host/system/read-system.ts';
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
}

/** @throws {PeerDmaError} `ERR_INVALID_ARGUMENT` @internal */
export function gatherFacts(sysfs: string | undefined, ram: bigint | undefined): Facts {
  if (ram !== undefined && (typeof ram !== 'bigint' || ram <= 0n)) {
    throw new PeerDmaError('ERR_INVALID_ARGUMENT', `RAM is a number of bytes above 0, not ${valueText(ram)}`);
  }
  const roots: SystemRoots = sysfs === undefined ? { sys: '/sys', top: '/' } : { sys: sysfs, top: undefined };
  const host = readHost(roots.sys);
  return {
    host,
    system: readSystem(roots, host),
    probes: sysfs === undefined ? probe() : 'unknown',
    ram,
    seesAllProcesses: process.geteuid?.() === 0,
  };
}
