/** The paths between migration states, against those that Linux lists (drivers/vfio/vfio_main.c). */
import test from 'ava';
import type { MigrationState } from '../../ts/index.ts';
import { statePath } from '../../ts/pci/migration/state-path.ts';

const ALL = { stopCopy: true, p2p: true, preCopy: true } as const;
/** The transitions of `vfio_mig_get_next_state` with several steps, if a device has all states. */
const PATHS = `
  pre-copy pre-copy-p2p stop-copy
  pre-copy running running-p2p
  pre-copy running running-p2p stop
  pre-copy running running-p2p stop resuming
  pre-copy-p2p running-p2p running
  pre-copy-p2p running-p2p stop
  pre-copy-p2p running-p2p stop resuming
  resuming stop running-p2p
  resuming stop running-p2p pre-copy-p2p
  resuming stop running-p2p running
  resuming stop running-p2p running pre-copy
  resuming stop stop-copy
  running running-p2p pre-copy-p2p
  running running-p2p stop
  running running-p2p stop resuming
  running running-p2p stop stop-copy
  running-p2p running pre-copy
  running-p2p stop resuming
  running-p2p stop stop-copy
  stop running-p2p pre-copy-p2p
  stop running-p2p running
  stop running-p2p running pre-copy
  stop-copy stop resuming
  stop-copy stop running-p2p
  stop-copy stop running-p2p running
`;

test('takes the combined paths of the kernel', (t) => {
  for (const line of PATHS.trim().split('\n')) {
    const [from, ...path] = line.trim().split(' ') as [MigrationState, ...MigrationState[]];
    t.deepEqual(statePath(from, path.at(-1) ?? from, ALL), path, line);
  }
  t.is(statePath('stop-copy', 'pre-copy', ALL), undefined);
  t.is(statePath('stop-copy', 'pre-copy-p2p', ALL), undefined);
  t.is(statePath('running', 'error', ALL), undefined);
  t.is(statePath('error', 'running', ALL), undefined);
  t.deepEqual(statePath('stop', 'stop', ALL), []);
});

test('leaves out the states that a device does not have', (t) => {
  const plain = { stopCopy: true, p2p: false, preCopy: false } as const;
  t.deepEqual(statePath('running', 'stop-copy', plain), ['stop', 'stop-copy']);
  t.deepEqual(statePath('resuming', 'running', plain), ['stop', 'running']);
  t.is(statePath('running', 'running-p2p', plain), undefined);
  t.is(statePath('running', 'pre-copy', plain), undefined);
  t.deepEqual(statePath('pre-copy', 'stop-copy', { ...plain, preCopy: true }), ['stop-copy']);
  t.is(statePath('running', 'pre-copy-p2p', { ...plain, preCopy: true }), undefined);
});
