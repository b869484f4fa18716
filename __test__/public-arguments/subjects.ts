/**
 * All calls of the package, by subject.
 */
import type { ExecutionContext } from 'ava';
import { driverCalls } from './calls/driver.ts';
import { guestCalls } from './calls/guest.ts';
import { hostBridgeCalls } from './calls/host-bridge.ts';
import { hostCalls } from './calls/host.ts';
import { journalCalls } from './calls/journal.ts';
import { kvmCalls } from './calls/kvm.ts';
import { memoryCalls } from './calls/memory.ts';
import { migrationCalls } from './calls/migration.ts';
import { simulationCalls } from './calls/simulation.ts';
import { socketCalls } from './calls/socket.ts';
import { vhostUserCalls } from './calls/vhost-user.ts';
import { vfioCalls } from './calls/vfio.ts';
import type { Calls } from './values.ts';

/** By the name that {@link publicSurface} gives a call. */
type Table = Readonly<Record<string, Calls>>;

export const SUBJECTS: Readonly<Record<string, (t: ExecutionContext) => Table | Promise<Table>>> = {
  'address ranges, files and errors': memoryCalls,
  'guest memory, regions and windows': guestCalls,
  'simulated IOMMUs and devices, and assigned devices': simulationCalls,
  'host bridges and their functions': hostBridgeCalls,
  'buffers, registers and events': driverCalls,
  'hosts and the doctor': hostCalls,
  'journals and explanations': journalCalls,
  'sockets and their descriptors': socketCalls,
  'migrations of a VM': migrationCalls,
  'VFIO devices': vfioCalls,
  'vhost-user back ends': vhostUserCalls,
  'virtual machines': kvmCalls,
};
