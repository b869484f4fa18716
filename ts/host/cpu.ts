/**
 * The maker and family of the CPU: the kernel goes by them where it decides whether requests are forwarded between root
 * ports; and whether a hypervisor runs it.
 */
import type { SysFiles } from './sys-files.ts';
import type { Unknown } from './model.ts';

const MODALIAS = 'devices/system/cpu/modalias';
/** X86_FEATURE_HYPERVISOR (4 * 32 + 31), as the modalias lists features (Linux, arch/x86/kernel/cpu/match.c). */
const HYPERVISOR = '009F';
/** X86_VENDOR_* of Linux, arch/x86/include/asm/processor.h. */
const VENDORS: Readonly<Record<string, CpuIdentity['vendor']>> = { '0000': 'intel', '0002': 'amd', '0009': 'hygon' };

/** Who made the CPU, and which family it is of. */
export interface CpuIdentity {
  /** Who made it. */
  readonly vendor: 'intel' | 'amd' | 'hygon' | 'other';
  /** As CPUID has it with the extended family added: 6 for Intel, 23 (0x17) and above for AMD Zen. */
  readonly family: number | Unknown;
}

/** From `cpu:type:x86,ven0002fam0017mod0071:feature:…`; unknown where the machine is no x86 or the tree lacks it. @internal */
export function readCpu(files: SysFiles): CpuIdentity | Unknown {
  const text = files.text(MODALIAS);
  if (text === undefined) return 'unknown';
  const [, vendor = '', family = ''] = /^cpu:type:x86,ven([0-9a-f]{4})fam([0-9a-f]{4})/i.exec(text) ?? [];
  if (vendor === '') return { vendor: 'other', family: 'unknown' };
  return { vendor: VENDORS[vendor.toLowerCase()] ?? 'other', family: Number.parseInt(family, 16) };
}

/** By the flag `hypervisor` of CPUID; unknown when the tree lists no features of an x86 CPU. @internal */
export function readVirtual(files: SysFiles): boolean | Unknown {
  const features = /^cpu:type:x86,.*:feature:,(.+)$/i.exec(files.text(MODALIAS) ?? '')?.[1];
  return features === undefined ? 'unknown' : features.toUpperCase().split(',').includes(HYPERVISOR);
}
