/**
 * `peerdma bind` and `peerdma unbind`: bind devices to vfio-pci and back to their own drivers.
 */
import { newSysfsWriter } from '../../host/binding/sysfs-writer.ts';
import { perform } from '../../host/binding/perform.ts';
import { type BindingPlan, chosenDevices, planBind, planUnbind } from '../../host/binding/plan.ts';
import { DeviceNeededError, checkPlan } from '../../host/binding/check-plan.ts';
import { isVfioDriver } from '../../host/drivers.ts';
import { type Machine, type MachineRoots, readMachine, thisMachine } from '../../host/machine.ts';
import type { PciFunction } from '../../host/model.ts';
import { deviceArguments } from '../arguments.ts';
import { type Command, type Invocation, type Terminal, UsageError } from '../command.ts';
import { ignoringSignals } from './ignore-signals.ts';
import { resultJson, resultLines, planJson, planLines } from './report.ts';

const OPTIONS = `  DEVICE…      PCI addresses, 0000:01:00.0 or 01:00.0. If one fails, none is changed
  --group      includes all other endpoints of their IOMMU groups. Bridges are left unchanged
  --dry-run    changes nothing, and prints the shell commands that would do it
  --force      includes devices that the host uses
  --json       prints the result as JSON`;

const BIND_USAGE = `peerdma bind [--group] [--driver NAME] [--dry-run] [--force] [--json] DEVICE…

Binds devices to vfio-pci, for VMMs and drivers in user space, until the next boot. The command rejects a device that
the host uses, and prints the reason: a mounted disk, the network of the default route or of a login, the boot display,
a physical function with virtual functions.

${OPTIONS}
  --driver NAME  a variant of vfio-pci, such as mlx5_vfio_pci

The command loads a missing driver by modprobe. Exit status: 0 for success. 1 if the command rejects a device or fails:
nothing is changed then, unless the message reports a change.
`;

const UNBIND_USAGE = `peerdma unbind [--group] [--dry-run] [--force] [--json] DEVICE…

Unbinds devices from vfio-pci, or a variant of it, and has the kernel probe their own drivers. The command rejects a
device that a process has open.

${OPTIONS}

Exit status: 0 for success, also if no driver binds to the device. 1 if the command rejects a device or fails: nothing
is changed then, unless the message reports a change.
`;

const COMMON = {
  group: { type: 'boolean' },
  'dry-run': { type: 'boolean' },
  force: { type: 'boolean' },
  json: { type: 'boolean' },
} as const;

/**
 * Creates the command `peerdma bind`.
 *
 * @param roots the folders of the machine that the command reads and writes
 */
export function bindCommand(roots: () => MachineRoots = thisMachine): Command {
  return {
    usage: BIND_USAGE,
    options: { ...COMMON, driver: { type: 'string' } },
    run: async (invocation, terminal) => {
      const driver = variantOf(invocation);
      return runBinding('bind', invocation, terminal, roots, (devices, { sys }) =>
        planBind(devices, driver, (name) => sys.has(`bus/pci/drivers/${name}`)),
      );
    },
  };
}

/**
 * Creates the command `peerdma unbind`.
 *
 * @param roots the folders of the machine that the command reads and writes
 */
export function unbindCommand(roots: () => MachineRoots = thisMachine): Command {
  return {
    usage: UNBIND_USAGE,
    options: COMMON,
    run: async (invocation, terminal) => runBinding('unbind', invocation, terminal, roots, planUnbind),
  };
}

function variantOf({ values }: Invocation): string | undefined {
  const driver = values['driver'];
  if (driver === undefined) return undefined;
  if (typeof driver === 'string' && /^[\w-]+$/.test(driver) && isVfioDriver(driver)) return driver;
  throw new UsageError('--driver takes vfio-pci or a variant of it, such as mlx5_vfio_pci');
}

/** Runs a command. Prints the reasons of a `DeviceNeededError` as a list: other errors are one line. */
async function runBinding(
  name: string,
  ...[invocation, terminal, roots, planOf]: Parameters<typeof change>
): Promise<number> {
  try {
    return await change(invocation, terminal, roots, planOf);
  } catch (error) {
    if (!(error instanceof DeviceNeededError)) throw error;
    terminal.stderr.lines([
      `peerdma ${name}: ${error.code}: the host uses these devices:`,
      ...error.reasons.map((reason) => `  - ${reason}`),
      'Use --force to change them anyway.',
    ]);
    return 1;
  }
}

async function change(
  { values, positionals }: Invocation,
  { stdout, stderr }: Terminal,
  roots: () => MachineRoots,
  planOf: (devices: readonly PciFunction[], machine: Machine) => BindingPlan,
): Promise<number> {
  if (positionals.length === 0) throw new UsageError('takes a device, such as 0000:01:00.0');
  const devices = deviceArguments(positionals);
  const machine = readMachine(roots());
  const plan = planOf(chosenDevices(machine.host, devices, values['group'] === true), machine);
  const notes = checkPlan(machine, plan, values['force'] === true);
  const json = values['json'] === true;
  if (!json) stderr.lines(notes.map((note) => `note: ${note}`));
  if (values['dry-run'] === true) {
    if (json) await stdout.json(planJson(plan, notes));
    else stdout.lines(planLines(plan));
    return 0;
  }
  const done = ignoringSignals(() => perform(plan, newSysfsWriter(machine.roots.sys)));
  if (json) await stdout.json(resultJson(plan, done, notes));
  else stdout.lines(resultLines(plan, done));
  return 0;
}
