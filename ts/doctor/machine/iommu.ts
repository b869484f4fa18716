/**
 * Reports whether an IOMMU is on and remaps interrupts.
 */
import { NO_IOMMU_NAME, TURN_ON_IN_FIRMWARE, TURN_ON_THE_IOMMU } from '../../host/iommu.ts';
import type { UnknownFact } from '../../host/model.ts';
import type { KernelParameter } from '../../host/system/command-line.ts';
import { type KernelFacts, optionOf } from '../../host/system/kernel.ts';
import { withoutRemapping } from '../../vfio/opening-errors.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';
import { FIRMWARE_SETUP, INSTALL_KERNEL, addToCommandLine, removeFromCommandLine } from '../commands.ts';
import { findIommuParameters, makerOf, remappingOff } from './iommu-parameters.ts';

/** Kernel options of x86 IOMMU drivers, by vendor. */
const IOMMU_DRIVERS = { intel: 'INTEL_IOMMU', amd: 'AMD_IOMMU', other: 'VIRTIO_IOMMU' } as const;
/** Options that turn Intel's IOMMU on by default; Debian sets the second. */
const ON_BY_DEFAULT = ['INTEL_IOMMU_DEFAULT_ON', 'INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF'];

type Remedy = Pick<DoctorFinding, 'text' | 'fix'>;

/** @internal */
export function iommuFinding(facts: Facts): DoctorFinding {
  const { groups, iommus, root } = facts.host;
  if (groups.size === 0 && !facts.system.showsGroups) {
    const text = 'whether an IOMMU is on is unknown here';
    return { id: 'iommu', state: 'unknown', text, evidence: `no ${root}/kernel/iommu_groups` };
  }
  if (groups.size === 0) {
    const evidence = evidenceOfNone(facts);
    return { id: 'iommu', state: 'blocked', ...remedyForNone(facts), evidence, code: 'ERR_NO_IOMMU_GROUP' };
  }
  const names = [...iommus.values()].map(({ name, addressBits }) =>
    addressBits === 'unknown' ? name : `${name} (${addressBits} bits)`,
  );
  const count = groups.size === 1 ? '1 group' : `${groups.size} groups`;
  const evidence = [`${root}/kernel/iommu_groups`, ...(names.length > 0 ? [`class/iommu: ${names.join(', ')}`] : [])];
  return { id: 'iommu', state: 'ok', text: `the IOMMU is on, with ${count}`, evidence: evidence.join('; ') };
}

function evidenceOfNone(facts: Facts): string {
  const { host, system } = facts;
  const { kernel, virtual, iommuTables } = system;
  const noIommuGroups = [...host.functions.values()].flatMap(({ noIommuGroup }) => noIommuGroup ?? []);
  const groups =
    noIommuGroups.length === 0
      ? 'has no IOMMU group'
      : `has only groups without an IOMMU (${NO_IOMMU_NAME}): ${noIommuGroups.join(', ')}`;
  const evidence = [`${host.root}/kernel/iommu_groups ${groups}`];
  if (iommuTables !== 'unknown') {
    evidence.push(
      iommuTables.length > 0
        ? `firmware/acpi/tables has ${iommuTables.join(', ')}`
        : 'firmware/acpi/tables has no DMAR, IVRS or VIOT, which describe an IOMMU',
    );
  }
  if (virtual === true) evidence.push('/proc/cpuinfo has the flag hypervisor');
  const lacking = lackingDrivers(facts);
  if (lacking.length > 0) evidence.push(`${lacking.map((name) => `CONFIG_${name}`).join(', ')} is not set`);
  if (system.onXen) evidence.push(`${host.root}/hypervisor/type is xen`);
  const words = parametersOf(kernel).filter(({ text }) => /iommu/.test(text));
  if (words.length > 0) evidence.push(`/proc/cmdline has ${words.map(({ text }) => text).join(' ')}`);
  return evidence.join('; ');
}

/** Returns the first remedy. The command line comes first, since it explains all else; then from the hardware up. */
function remedyForNone(facts: Facts): Remedy {
  const { kernel, virtual, iommuTables, onXen } = facts.system;
  const maker = makerOf(facts);
  const { off, on } = findIommuParameters(parametersOf(kernel), maker);
  if (off.length > 0) {
    const words = off.map(({ text }) => text);
    return {
      text: `no IOMMU is on: the kernel's command line turns it off. Remove ${words.join(' and ')} and reboot`,
      fix: removeFromCommandLine(...words),
    };
  }
  if (onXen) {
    const text =
      'no IOMMU is on: Linux runs on Xen, which reserves the IOMMU for itself. Assign devices with Xen (xl pci-assignable-add), or boot Linux without Xen';
    return { text };
  }
  const byDefault = ON_BY_DEFAULT.find((name) => optionOf(kernel, name) === 'y');
  const asked = maker === 'intel' ? (on?.text ?? (byDefault && `CONFIG_${byDefault}`)) : undefined;
  if (iommuTables === 'unknown' || iommuTables.length === 0) {
    if (virtual === true) {
      const text =
        'no IOMMU is on: this virtual machine has none. Add one on its host (QEMU: -machine kernel-irqchip=split -device intel-iommu,intremap=on; libvirt: <iommu model="intel">)';
      return { text };
    }
    return {
      text:
        asked === undefined
          ? `no IOMMU is on: ${TURN_ON_THE_IOMMU}`
          : `no IOMMU is on, though the kernel enables it (${asked}): ${TURN_ON_IN_FIRMWARE}`,
      fix: iommuTables === 'unknown' ? undefined : FIRMWARE_SETUP,
    };
  }
  if (lackingDrivers(facts).length > 0) {
    const text = "no IOMMU is on: this kernel has no driver for it. Boot a kernel with a driver, such as Debian's";
    return { text, fix: INSTALL_KERNEL };
  }
  if (maker === 'intel' && asked === undefined && kernel !== 'unknown') {
    return {
      text: 'no IOMMU is on, though the firmware has it on. Boot Linux with intel_iommu=on',
      fix: addToCommandLine('intel_iommu=on'),
    };
  }
  const enabled = asked === undefined ? '' : ` and the kernel enables it (${asked})`;
  return {
    text: `no IOMMU is on, though the firmware has one${enabled}. Read the kernel's log for the reason`,
    fix: `sudo dmesg | grep -iE 'iommu|dmar|amd-vi'`,
  };
}

/**
 * Returns options of missing drivers: that of the machine's IOMMU, or all if its vendor is unknown.
 */
function lackingDrivers(facts: Facts): string[] {
  const maker = makerOf(facts);
  const wanted = maker === 'unknown' ? Object.values(IOMMU_DRIVERS) : [IOMMU_DRIVERS[maker]];
  return wanted.every((name) => optionOf(facts.system.kernel, name) === 'n') ? wanted : [];
}

function parametersOf(kernel: KernelFacts | UnknownFact): readonly KernelParameter[] {
  return kernel === 'unknown' ? [] : kernel.commandLine;
}

/** Returns no finding without an IOMMU, which is what remaps interrupts. @internal */
export function interruptFindings({ host, system }: Facts): DoctorFinding[] {
  if (host.groups.size === 0) return [];
  const id = 'interrupt-remapping';
  const { remapped, chips, unsafeAllowed } = system.interrupts;
  if (remapped === 'unknown') {
    const text = 'whether interrupts are remapped is unknown here';
    return [{ id, state: 'unknown', text, evidence: `${host.root}/kernel/irq has no chip_name of an x86` }];
  }
  const evidence = `${host.root}/kernel/irq/*/chip_name: ${chips.join(', ')}`;
  if (remapped) return [{ id, state: 'ok', text: 'interrupts are remapped', evidence }];
  const text = withoutRemapping('this machine', 'vfio_iommu_type1');
  const allowed = (['type1', 'iommufd'] as const).filter((name) => unsafeAllowed[name]);
  if (allowed.length === 0) {
    return [{ id, state: 'blocked', text, evidence, code: 'ERR_NO_INTERRUPT_REMAPPING', fix: remappingRemedy(system) }];
  }
  const accepted = `${text}. It is allowed for ${allowed.join(' and ')}`;
  return [{ id, state: 'warning', text: accepted, evidence, fix: remappingRemedy(system) }];
}

function remappingRemedy({ kernel, virtual }: Facts['system']): string | undefined {
  const off = remappingOff(parametersOf(kernel));
  if (off !== undefined) return removeFromCommandLine(off.text);
  return virtual === false ? FIRMWARE_SETUP : undefined;
}
