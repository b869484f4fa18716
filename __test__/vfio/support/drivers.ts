/**
 * `peerdma bind` and `unbind` in this process, and the drivers of real devices.
 */
import { deepStrictEqual as deepEqual } from 'node:assert/strict';
import type { ExecutionContext } from 'ava';
import { bindCommand, unbindCommand } from '../../../ts/cli/bind/command.ts';
import { newSysfsWriter } from '../../../ts/host/binding/sysfs-writer.ts';
import { type MachineRoots, thisMachine } from '../../../ts/host/machine.ts';
import { entryOf, program, type Outcome } from '../../cli/support.ts';

export const writer = newSysfsWriter('/sys');

/** Runs `peerdma bind` or `unbind` in this process. */
export async function run(args: readonly string[], roots: () => MachineRoots = thisMachine): Promise<Outcome> {
  return program(args, false, { bind: entryOf(bindCommand(roots)), unbind: entryOf(unbindCommand(roots)) });
}

/** The driver and the override. */
export function state(bdf: string): (string | undefined)[] {
  return [writer.driverOf(bdf), writer.overrideOf(bdf)];
}

/** The state of a device that is bound to VFIO. */
export const BOUND = ['vfio-pci', 'vfio-pci'];

/** Runs the command and reports its failure. */
export async function runSuccessfully(t: ExecutionContext, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await run(args);
  t.is(status, 0, stderr);
  return stdout;
}

/** Runs the command and checks that it fails without an effect. */
export async function assertRefused(
  t: ExecutionContext,
  args: readonly string[],
  pattern: RegExp,
  roots?: () => MachineRoots,
): Promise<void> {
  const { status, stdout, stderr } = await run(args, roots);
  t.deepEqual([status, stdout], [1, '']);
  t.regex(stderr, pattern);
}

/** Restores the drivers at the end of the test. */
export function restoreDrivers(t: ExecutionContext, ...devices: string[]): void {
  t.teardown(async () => {
    for (const bdf of devices) await run(['bind', '--force', bdf]);
    for (const bdf of devices) deepEqual(state(bdf), BOUND, bdf);
  });
}
