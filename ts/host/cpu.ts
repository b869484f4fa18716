/**
 * Vendor and family of the CPU, and whether it runs below a hypervisor.
 *
 * The kernel derives from the vendor and family whether the CPU forwards requests between root ports.
 */
import type { SysFiles } from './sys-files.ts';
import type { UnknownFact } from './model.ts';

const MODALIAS = 'devices/system/cpu/modalias';
/** X86_FEATURE_HYPERVISOR (4 * 32 + 31) in a modalias (Linux, arch/x86/kernel/cpu/match.c). */
const HYPERVISOR = '009F';
/** X86_VENDOR_* of Linux, arch/x86/include/asm/processor.h. */
const VENDORS: Readonly<Record<string, CpuIdentity['vendor']>> = { '0000': 'intel', '0002': 'amd', '0009': 'hygon' };

/** Vendor and family of a CPU. */
export interface CpuIdentity {
  /** The vendor of the CPU. */
  readonly vendor: 'intel' | 'amd' | 'hygon' | 'other';
  /** Family of CPUID plus extended family: 6 for Intel, 23 (0x17) and above for AMD Zen. */
  readonly family: number | UnknownFact;
}

/**
 * Reads `cpu:type:x86,ven0002fam0017mod0071:feature:…`; unknown if the tree lacks the file.
 *
 * @internal
 */
export function readCpu(files: SysFiles): CpuIdentity | UnknownFact {
  const text = files.text(MODALIAS);
  if (text === undefined) return 'unknown';
  const [, vendor = '', family = ''] = /^cpu:type:x86,ven([0-9a-f]{4})fam([0-9a-f]{4})/i.exec(text) ?? [];
  if (vendor === '') return { vendor: 'other', family: 'unknown' };
  return { vendor: VENDORS[vendor.toLowerCase()] ?? 'other', family: Number.parseInt(family, 16) };
}

/** Reads the flag `hypervisor` of CPUID; unknown if the tree lists no features of an x86 CPU. @internal */
export function readVirtual(files: SysFiles): boolean | UnknownFact {
  const features = /^cpu:type:x86,.*:feature:,(.+)$/i.exec(files.text(MODALIAS) ?? '')?.[1];
  return features === undefined ? 'unknown' : features.toUpperCase().split(',').includes(HYPERVISOR);
}
