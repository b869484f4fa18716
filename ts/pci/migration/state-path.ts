/** The paths between the migration states of a device, by the kernel's rules. */
import type { MigrationState, MigrationSupport } from './device-migration.ts';

/** A transition that a device makes in one step, and the features that it requires or excludes. */
interface Arc {
  readonly from: MigrationState;
  readonly to: MigrationState;
  readonly p2p?: boolean;
  readonly preCopy?: boolean;
}

/** The arcs of `enum vfio_device_mig_state` (Linux, include/uapi/linux/vfio.h). */
const ARCS: readonly Arc[] = [
  { from: 'running', to: 'stop', p2p: false },
  { from: 'stop', to: 'running', p2p: false },
  { from: 'running', to: 'running-p2p', p2p: true },
  { from: 'running-p2p', to: 'running', p2p: true },
  { from: 'running-p2p', to: 'stop', p2p: true },
  { from: 'stop', to: 'running-p2p', p2p: true },
  { from: 'stop', to: 'stop-copy' },
  { from: 'stop-copy', to: 'stop' },
  { from: 'stop', to: 'resuming' },
  { from: 'resuming', to: 'stop' },
  { from: 'running', to: 'pre-copy', preCopy: true },
  { from: 'pre-copy', to: 'running', preCopy: true },
  { from: 'pre-copy', to: 'stop-copy', preCopy: true, p2p: false },
  { from: 'pre-copy', to: 'pre-copy-p2p', preCopy: true, p2p: true },
  { from: 'pre-copy-p2p', to: 'pre-copy', preCopy: true, p2p: true },
  { from: 'running-p2p', to: 'pre-copy-p2p', preCopy: true, p2p: true },
  { from: 'pre-copy-p2p', to: 'running-p2p', preCopy: true, p2p: true },
  { from: 'pre-copy-p2p', to: 'stop-copy', preCopy: true, p2p: true },
];

/** The states that share a session of data to read. @internal */
export const SAVING: ReadonlySet<MigrationState> = new Set(['pre-copy', 'pre-copy-p2p', 'stop-copy']);

/**
 * Returns the states from one to another, without the first; `undefined` if there is no path.
 *
 * It is the shortest path. It passes through a saving state only if both ends are saving states, and none leads from
 * `stop-copy` back to them.
 *
 * @internal
 */
export function statePath(
  from: MigrationState,
  to: MigrationState,
  { p2p, preCopy }: MigrationSupport,
): MigrationState[] | undefined {
  const arcs = ARCS.filter((arc) => (arc.p2p ?? p2p) === p2p && (arc.preCopy ?? preCopy) === preCopy);
  if (from === 'stop-copy' && SAVING.has(to) && to !== from) return undefined;
  const isSaved = SAVING.has(from) && SAVING.has(to);
  const paths: MigrationState[][] = [[from]];
  const seen = new Set<MigrationState>([from]);
  for (const path of paths) {
    const last = path.at(-1);
    if (last === to) return path.slice(1);
    for (const arc of arcs) {
      if (arc.from !== last || seen.has(arc.to)) continue;
      if (arc.to !== to && SAVING.has(arc.to) && !isSaved) continue;
      seen.add(arc.to);
      paths.push([...path, arc.to]);
    }
  }
  return undefined;
}
