/**
 * Finds IOMMU parameters in the kernel's command line by the kernel's rules. It compares prefixes of options
 * (`strncmp`), in order.
 */
import type { UnknownFact } from '../../host/model.ts';
import type { KernelParameter } from '../../host/system/command-line.ts';
import type { Facts } from '../facts.ts';

/** Vendor of the IOMMU's driver. Parameters of other drivers have no effect. */
export type IommuMaker = 'intel' | 'amd' | 'other';

/** @internal */
export interface IommuParameters {
  /** Parameters that turn the IOMMU off; each must be removed. */
  readonly off: readonly KernelParameter[];
  /** The last parameter that turns it on. */
  readonly on: KernelParameter | undefined;
}

/** Derives the vendor from ACPI tables, or else the CPU. An emulated IOMMU can differ from the CPU. @internal */
export function makerOf({ host: { cpu }, system: { iommuTables } }: Facts): IommuMaker | UnknownFact {
  const tables = iommuTables === 'unknown' ? [] : iommuTables;
  if (tables.includes('DMAR')) return 'intel';
  if (tables.includes('IVRS')) return 'amd';
  if (tables.length > 0) return 'other';
  if (cpu === 'unknown') return 'unknown';
  return cpu.vendor === 'hygon' ? 'amd' : cpu.vendor;
}

/**
 * Evaluates parameters like Linux.
 *
 * The functions there are `iommu_setup` (arch/x86/kernel/pci-dma.c), `intel_iommu_setup` (drivers/iommu/intel/iommu.c)
 * and `parse_amd_iommu_options` (drivers/iommu/amd/init.c).
 *
 * No later parameter reverts `iommu=off` and `amd_iommu=off`.
 *
 * @param maker vendor of the IOMMU; all parameters count if it is unknown
 * @internal
 */
export function findIommuParameters(
  parameters: readonly KernelParameter[],
  maker: IommuMaker | UnknownFact,
): IommuParameters {
  const permanent: KernelParameter[] = [];
  let intel: KernelParameter[] = [];
  let on: KernelParameter | undefined;
  for (const parameter of parameters) {
    const { name } = parameter;
    if (maker === 'other' || !isOf(maker, name)) continue;
    for (const option of optionsOf(parameter)) {
      if (name === 'iommu' && option.startsWith('usedac')) break; // the kernel stops here
      if (option.startsWith('off')) (name === 'intel_iommu' ? intel : permanent).push(parameter);
      if (name !== 'intel_iommu' || !option.startsWith('on')) continue;
      intel = [];
      on = parameter;
    }
  }
  return { off: [...new Set([...permanent, ...intel])], on };
}

function isOf(maker: 'intel' | 'amd' | UnknownFact, name: string): boolean {
  if (name === 'iommu') return true;
  return (name === 'intel_iommu' && maker !== 'amd') || (name === 'amd_iommu' && maker !== 'intel');
}

/** Returns the parameter that turns interrupt remapping off. The last one wins (`setup_irqremap`). @internal */
export function remappingOff(parameters: readonly KernelParameter[]): KernelParameter | undefined {
  let off: KernelParameter | undefined;
  for (const parameter of parameters) {
    if (parameter.name === 'nointremap') off = parameter;
    if (parameter.name !== 'intremap') continue;
    for (const option of optionsOf(parameter)) {
      if (option.startsWith('off')) off = parameter;
      else if (option.startsWith('on')) off = undefined;
    }
  }
  return off;
}

function optionsOf({ value = '' }: KernelParameter): string[] {
  return value.split(',');
}
