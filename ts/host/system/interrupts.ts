/**
 * Reads whether the IOMMU remaps interrupts, and whether modules accept devices without remapping.
 *
 * Without remapping a device can forge interrupts.
 */
import type { UnknownFact } from '../model.ts';
import type { SysFiles } from '../sys-files.ts';

/** Interrupt remapping of the machine. */
export interface InterruptFacts {
  /** Whether interrupts are remapped; unknown if /sys lists no x86 interrupt controller. */
  readonly remapped: boolean | UnknownFact;
  /** The kernel's names of the interrupt controllers that show it. */
  readonly chips: readonly string[];
  /** `allow_unsafe_interrupts` of the modules. */
  readonly unsafeAllowed: { readonly type1: boolean; readonly iommufd: boolean };
}

/**
 * Reads the names of interrupt controllers. With remapping they begin with `IR-` (Linux,
 * arch/x86/kernel/apic/io_apic.c and drivers/iommu/intel/irq_remapping.c).
 *
 * @internal
 */
export function readInterrupts(files: SysFiles): InterruptFacts {
  const names = files.names('kernel/irq').map((irq) => files.word(`kernel/irq/${irq}/chip_name`) ?? '');
  const of = (pattern: RegExp): string[] => [...new Set(names.filter((name) => pattern.test(name)))];
  const [remapping, plain] = [of(/^IR-/), of(/^(?:IO-APIC|PCI-MSI)/)];
  return {
    remapped: remapping.length > 0 ? true : plain.length > 0 ? false : 'unknown',
    chips: (remapping.length > 0 ? remapping : plain).slice(0, 3),
    unsafeAllowed: { type1: allowed(files, 'vfio_iommu_type1'), iommufd: allowed(files, 'iommufd') },
  };
}

function allowed(files: SysFiles, module: string): boolean {
  return files.word(`module/${module}/parameters/allow_unsafe_interrupts`) === 'Y';
}
