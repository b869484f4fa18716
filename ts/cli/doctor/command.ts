/**
 * `peerdma doctor`: checks whether devices of this machine can be assigned, and names the remedies.
 */
import { type DiagnoseOptions, diagnose } from '../../doctor/diagnose.ts';
import { bytesOf } from '../../size.ts';
import { deviceArguments, fileOption } from '../arguments.ts';
import { type Command, type Invocation, UsageError } from '../command.ts';
import { type IdsText, newIdsText } from '../topology/pci-ids.ts';
import { diagnosisLines } from './diagnosis-lines.ts';

const USAGE = `peerdma doctor [--ram SIZE] [--open] [--json] [--sysfs DIR] [DEVICE…]

Checks whether devices of this machine can be assigned, and prints the remedies if not. It checks the IOMMU, VFIO and
its back ends, permissions, limits and huge pages; and for each device its driver, its group, the processes that have it
open, its reset methods and its BARs. Run it as the user of the VMM. Only root sees the processes of other users.

  DEVICE…      PCI addresses, 0000:01:00.0 or 01:00.0. Default: all devices that can be assigned. A device that the
               host uses is not a problem then
  --ram SIZE   RAM of the guest, such as 16G, which the limits must allow
  --open       opens the devices that are bound to VFIO and unused, which resets them, and reads facts that are derived
               otherwise
  --json       prints all findings as JSON
  --sysfs DIR  reads a copy of the /sys of another machine. Facts that it lacks, such as limits, are unknown

Exit status: 0, also for warnings and unknown facts. 1 if a finding is blocked, or a DEVICE does not exist.
`;

/**
 * Creates the command `peerdma doctor`.
 *
 * @param idsText formats the IDs of a function
 */
export function doctorCommand(idsText: IdsText = newIdsText()): Command {
  return {
    usage: USAGE,
    options: {
      ram: { type: 'string' },
      open: { type: 'boolean' },
      json: { type: 'boolean' },
      sysfs: { type: 'string' },
    },
    async run({ values, positionals }, { stdout }) {
      const diagnosis = await diagnose(optionsOf(values, positionals));
      if (values['json'] === true) await stdout.json(diagnosis);
      else stdout.lines(diagnosisLines(diagnosis, positionals.length > 0, stdout.paint, idsText));
      return diagnosis.state === 'blocked' ? 1 : 0;
    },
  };
}

function optionsOf(values: Invocation['values'], positionals: readonly string[]): DiagnoseOptions {
  const { ram, open } = values;
  const sysfs = fileOption({ values }, 'sysfs');
  const devices = deviceArguments(positionals);
  if (open === true && sysfs !== undefined) throw new UsageError('--open needs this machine: leave out --sysfs');
  const bytes = typeof ram === 'string' ? bytesOf(ram) : undefined;
  if (ram !== undefined && (bytes === undefined || bytes === 0n)) {
    throw new UsageError(`--ram takes a size such as 16G, not ${String(ram)}`);
  }
  return {
    ...(devices.length > 0 ? { devices } : {}),
    ...(bytes === undefined ? {} : { ram: bytes }),
    ...(sysfs === undefined ? {} : { sysfs }),
    open: open === true,
  };
}
