/**
 * What the kernel's command line says of the IOMMU, judged as the kernel does: options by their prefixes (`strncmp`),
 * in the order of the line.
 */
import type { Unknown } from '../../host/model.ts';
import type { KernelParameter } from '../../host/system/command-line.ts';
import type { Facts } from '../facts.ts';

/** The maker whose driver the IOMMU has: only the parameters of that driver count. */
export type IommuMaker = 'intel' | 'amd' | 'other';

/** @internal */
export interface IommuParameters {
  /** Parameters that turn the IOMMU off; all of them have to go. */
  readonly off: readonly KernelParameter[];
  /** The last parameter that turns it on. */
  readonly on: KernelParameter | undefined;
}

/** By the firmware's table, since an emulated IOMMU need not be that of the CPU's maker; else by the CPU. @internal */
export function makerOf({ host: { cpu }, system: { iommuTables } }: Facts): IommuMaker | Unknown {
  const tables = iommuTables === 'unknown' ? [] : iommuTables;
  if (tables.includes('DMAR')) return 'intel';
  if (tables.includes('IVRS')) return 'amd';
  if (tables.length > 0) return 'other';
  if (cpu === 'unknown') return 'unknown';
  return cpu.vendor === 'hygon' ? 'amd' : cpu.vendor;
}

/**
 * Linux, `iommu_setup` (arch/x86/kernel/pci-dma.c), `intel_iommu_setup` (drivers/iommu/intel/iommu.c) and
 * `parse_amd_iommu_options` (drivers/iommu/amd/init.c). Nothing takes back `iommu=off` and `amd_iommu=off`.
 *
 * @param maker parameters of another maker mean nothing; all count while the maker is unknown
 * @internal
 */
export function findIommuParameters(
  parameters: readonly KernelParameter[],
  maker: IommuMaker | Unknown,
): IommuParameters {
  const permanent: KernelParameter[] = [];
  let intel: KernelParameter[] = [];
  let on: KernelParameter | undefined;
  for (const parameter of parameters) {
    const { name } = parameter;
    if (maker === 'other' || !isOf(maker, name)) continue;
    for (const option of optionsOf(parameter)) {
      if (name === 'iommu' && option.startsWith('usedac')) break; // the kernel reads no further
      if (option.startsWith('off')) (name === 'intel_iommu' ? intel : permanent).push(parameter);
      if (name !== 'intel_iommu' || !option.startsWith('on')) continue;
      intel = [];
      on = parameter;
    }
  }
  return { off: [...new Set([...permanent, ...intel])], on };
}

function isOf(maker: 'intel' | 'amd' | Unknown, name: string): boolean {
  if (name === 'iommu') return true;
  return (name === 'intel_iommu' && maker !== 'amd') || (name === 'amd_iommu' && maker !== 'intel');
}

/** The parameter that turns interrupt remapping off, the last one about it (`setup_irqremap`). @internal */
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
