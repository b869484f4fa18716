/**
 * Findings about the IOMMU, with remedies if none is on.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { addToCommandLine, removeFromCommandLine } from '../../ts/doctor/commands.ts';
import { expandTree } from '../support/sysfs/expand.ts';
import { NO_IOMMU, SYS, TOP, diagnosed, one, testCases } from './support.ts';

const NO_TABLES = SYS.replace('DMAR = x\n', '');
const VIRTUAL = TOP.replace('fpu vme', 'fpu hypervisor vme');

testCases([
  [
    'an IOMMU that the command line turns off',
    { machine: NO_IOMMU, top: TOP.replace('intel_iommu=on', 'intel_iommu=sm_off,off') },
    'iommu',
    'blocked',
    /Remove intel_iommu=sm_off,off/,
    /^sudo sed -i 's\/\\bintel_iommu=sm_off,off\\b\/\/' \/etc\/default\/grub && sudo update-grub$/,
  ],
  [
    'an IOMMU that Linux is not configured to use',
    { machine: NO_IOMMU, top: TOP.replace(' intel_iommu=on', '') },
    'iommu',
    'blocked',
    /firmware has it on.*Boot Linux with intel_iommu=on/,
    /^sudo sed -i 's\/\^GRUB_CMDLINE_LINUX="\/&intel_iommu=on \/' \/etc\/default\/grub && sudo update-grub$/,
  ],
  [
    'firmware that has it off while the command line requests it',
    { machine: NO_IOMMU, sys: NO_TABLES },
    'iommu',
    'blocked',
    /though the kernel enables it \(intel_iommu=on\): turn on the IOMMU in the firmware \(VT-d, AMD-Vi\)$/,
    /^sudo systemctl reboot --firmware-setup$/,
  ],
  [
    'firmware with unreadable tables while the command line requests it',
    { machine: NO_IOMMU, sys: SYS.replace(/\[firmware[^[]*/, '') },
    'iommu',
    'blocked',
    /though the kernel enables it \(intel_iommu=on\): turn on the IOMMU in the firmware \(VT-d, AMD-Vi\)$/,
    undefined,
  ],
  [
    'firmware that has it off without a request of the command line',
    { machine: NO_IOMMU, sys: NO_TABLES, top: TOP.replace(' intel_iommu=on', '') },
    'iommu',
    'blocked',
    /boot Linux with intel_iommu=on/,
    /^sudo systemctl reboot --firmware-setup$/,
  ],
  [
    'a virtual machine without one',
    { machine: NO_IOMMU, sys: NO_TABLES, top: VIRTUAL },
    'iommu',
    'blocked',
    /virtual machine.*-device intel-iommu,intremap=on/,
    undefined,
  ],
  [
    'a kernel without a driver for it',
    { machine: NO_IOMMU, top: TOP.replace('CONFIG_INTEL_IOMMU=y', 'CONFIG_X=y') },
    'iommu',
    'blocked',
    /no driver for it/,
    /^sudo apt-get install linux-image-amd64$/,
  ],
  [
    'an IOMMU of an AMD machine that Linux does not use',
    { machine: NO_IOMMU.replace('intel 6', 'amd 25'), sys: SYS.replace('DMAR', 'IVRS') },
    'iommu',
    'blocked',
    /though the firmware has one/,
    /^sudo dmesg \| grep -iE/,
  ],
  [
    'interrupts that are not remapped',
    { sys: SYS.replace('IR-IO-APIC', 'IO-APIC') },
    'interrupt-remapping',
    'blocked',
    /^this machine has no interrupt remapping.*allow_unsafe_interrupts=1$/,
    /firmware-setup/,
  ],
  [
    'interrupts that are not remapped, in a virtual machine',
    { sys: SYS.replace('IR-IO-APIC', 'IO-APIC'), top: VIRTUAL },
    'interrupt-remapping',
    'blocked',
    /no interrupt remapping/,
    undefined,
  ],
  [
    'interrupt remapping that is turned off',
    { sys: SYS.replace('IR-IO-APIC', 'PCI-MSI'), top: TOP.replace('quiet', 'intremap=off') },
    'interrupt-remapping',
    'blocked',
    /no interrupt remapping/,
    /\\bintremap=off\\b/,
  ],
  [
    'unsafe interrupts that are allowed',
    { sys: SYS.replace('IR-IO-APIC', 'IO-APIC').replace('interrupts = N', 'interrupts = Y') },
    'interrupt-remapping',
    'warning',
    /It is allowed for type1$/,
    /firmware-setup/,
  ],
  [
    'interrupt controllers of another architecture than x86',
    { sys: SYS.replace('IR-IO-APIC', 'GICv3') },
    'interrupt-remapping',
    'unknown',
    /unknown here/,
    undefined,
  ],
]);

test('suggests no command for a parameter that a shell would interpret', (t) => {
  const top = TOP.replace('intel_iommu=on', "iommu=off,$(reboot)';");
  const finding = one(diagnosed(t, { machine: NO_IOMMU, top }), 'iommu');
  t.regex(finding.text, /Remove iommu=off,\$\(reboot\)';/);
  t.is(finding.fix, undefined);
});

test('commands add and remove parameters of the command line', (t) => {
  const root = expandTree(
    t,
    'grub = # as it was\\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\\nGRUB_CMDLINE_LINUX="ro intel_iommu=off,sm_on"',
  );
  const grub = join(root, 'grub');
  const run = (command = ''): string => {
    const [, sed = ''] = /^sudo (sed -i .*) && sudo update-grub$/.exec(command) ?? [];
    execFileSync('sh', ['-c', sed.replace('/etc/default/grub', grub)]);
    return readFileSync(grub, 'utf8').trim().split('\n').at(-1) ?? '';
  };
  t.is(run(removeFromCommandLine('intel_iommu=off,sm_on')), 'GRUB_CMDLINE_LINUX="ro "');
  t.is(run(addToCommandLine('intel_iommu=on')), 'GRUB_CMDLINE_LINUX="intel_iommu=on ro "');
  t.regex(readFileSync(grub, 'utf8'), /^# as it was\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n/);
});
