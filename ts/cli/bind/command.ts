/**
 * `peerdma bind` and `peerdma unbind`: devices to VFIO and back.
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
import { uninterrupted } from './uninterrupted.ts';
import { doneJson, doneLines, plannedJson, plannedLines } from './words.ts';

const OPTIONS = `  DEVICE…      PCI addresses, 0000:01:00.0 or 01:00.0. All of them, or none where one fails.
  --group      and all other endpoints of their IOMMU groups; bridges stay as they are
  --dry-run    looks, and prints the commands that would do it
  --force      takes from the host what it uses
  --json       what was done, as JSON`;

const BIND_USAGE = `peerdma bind [--group] [--driver NAME] [--dry-run] [--force] [--json] DEVICE…

Gives devices to vfio-pci, for VMMs and drivers in user space, until the next boot. Refused, with the reason, is what would
take away a disk that is in use, the network of the default route or of a login, the boot display, or virtual functions.

${OPTIONS}
  --driver NAME  a variant of vfio-pci, such as mlx5_vfio_pci

A driver that is not there is loaded by modprobe. Exit status: 0; 1 where it was refused or failed: nothing is changed then,
or the message says what.
`;

const UNBIND_USAGE = `peerdma unbind [--group] [--dry-run] [--force] [--json] DEVICE…

Takes devices from vfio-pci, or a variant of it, and lets the kernel find their own drivers. Refused while a process has
the device open.

${OPTIONS}

Exit status: 0, also where no driver takes the device; 1 where it was refused or failed: nothing is changed then, or the
message says what.
`;

const COMMON = {
  group: { type: 'boolean' },
  'dry-run': { type: 'boolean' },
  force: { type: 'boolean' },
  json: { type: 'boolean' },
} as const;

/** @param roots where the machine is looked at and written to */
export function bindCommand(roots: () => MachineRoots = thisMachine): Command {
  return {
    summary: 'gives devices to vfio-pci',
    usage: BIND_USAGE,
    options: { ...COMMON, driver: { type: 'string' } },
    run: async (invocation, terminal) => {
      const driver = variantOf(invocation);
      return changeOrRefuse('bind', invocation, terminal, roots, (devices, { sys }) =>
        planBind(devices, driver, (name) => sys.has(`bus/pci/drivers/${name}`)),
      );
    },
  };
}

/** @param roots where the machine is looked at and written to */
export function unbindCommand(roots: () => MachineRoots = thisMachine): Command {
  return {
    summary: 'takes devices from vfio-pci, back to their own drivers',
    usage: UNBIND_USAGE,
    options: COMMON,
    run: async (invocation, terminal) => changeOrRefuse('unbind', invocation, terminal, roots, planUnbind),
  };
}

function variantOf({ values }: Invocation): string | undefined {
  const driver = values['driver'];
  if (driver === undefined) return undefined;
  if (typeof driver === 'string' && /^[\w-]+$/.test(driver) && isVfioDriver(driver)) return driver;
  throw new UsageError('--driver takes vfio-pci or a variant of it, such as mlx5_vfio_pci');
}

/** Prints what the host uses line by line: what other errors say is one line. */
async function changeOrRefuse(
  name: string,
  ...[invocation, terminal, roots, planOf]: Parameters<typeof change>
): Promise<number> {
  try {
    return await change(invocation, terminal, roots, planOf);
  } catch (error) {
    if (!(error instanceof DeviceNeededError)) throw error;
    terminal.stderr.lines([
      `peerdma ${name}: ${error.code}: this machine would lose what it uses:`,
      ...error.reasons.map((reason) => `  - ${reason}`),
      '--force takes it all the same',
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
  if (positionals.length === 0) throw new UsageError('takes a device: 0000:01:00.0, say');
  const devices = deviceArguments(positionals);
  const machine = readMachine(roots());
  const plan = planOf(chosenDevices(machine.host, devices, values['group'] === true), machine);
  const notes = checkPlan(machine, plan, values['force'] === true);
  const json = values['json'] === true;
  if (!json) stderr.lines(notes.map((note) => `note: ${note}`));
  if (values['dry-run'] === true) {
    if (json) await stdout.json(plannedJson(plan, notes));
    else stdout.lines(plannedLines(plan));
    return 0;
  }
  const done = uninterrupted(() => perform(plan, newSysfsWriter(machine.roots.sys)));
  if (json) await stdout.json(doneJson(plan, done, notes));
  else stdout.lines(doneLines(plan, done));
  return 0;
}
