/**
 * `peerdma doctor`: whether this machine is able, and what to do if not.
 */
import { type DiagnoseOptions, diagnose } from '../../doctor/diagnose.ts';
import { bytesOf } from '../../size.ts';
import { deviceArguments, fileOption } from '../arguments.ts';
import { type Command, type Invocation, UsageError } from '../command.ts';
import { diagnosisLines } from './diagnosis-lines.ts';

const USAGE = `peerdma doctor [--ram SIZE] [--open] [--json] [--sysfs DIR] [DEVICE…]

Whether devices of this machine can be assigned, and if not, what to do: IOMMU, VFIO and its back ends, permissions, limits,
huge pages, and for each device its driver, its group and who else is in it, who has it open, resets, and what can be done with
its BARs. Run it as the user that the VMM will have; as root it sees who has a device open.

  DEVICE…      PCI addresses, 0000:01:00.0 or 01:00.0. Default: all that could be assigned; one that the host uses is no
               fault then
  --ram SIZE   RAM that a guest is to have, such as 16G: limits are held against it
  --open       opens the devices that VFIO has and nobody else uses, which resets them: what is derived otherwise is asked
  --json       all findings, as JSON
  --sysfs DIR  another machine's /sys, copied: what is not in it, such as the limits, is unknown then

Exit status: 0; 1 where something is blocked, or a DEVICE is not there. Warnings, and what can't be known, are 0.
`;

export const doctorCommand: Command = {
  summary: 'says whether devices can be assigned here, and what to do if not',
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
    else stdout.lines(diagnosisLines(diagnosis, positionals.length > 0, stdout.paint));
    return diagnosis.state === 'blocked' ? 1 : 0;
  },
};

function optionsOf(values: Invocation['values'], positionals: readonly string[]): DiagnoseOptions {
  const { ram, open } = values;
  const sysfs = fileOption({ values }, 'sysfs');
  const devices = deviceArguments(positionals);
  if (open === true && sysfs !== undefined) throw new UsageError('--open is for this machine, not for a copied /sys');
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
