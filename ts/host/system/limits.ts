/**
 * Reads limits of this process: locked memory and memory mappings.
 */
import type { UnknownFact } from '../model.ts';
import type { SysFiles } from '../sys-files.ts';

/** Bit of `CapEff` (linux/capability.h). */
const CAP_IPC_LOCK = 14n;

/** Limits and usage of this process. */
export interface LimitFacts {
  /** RLIMIT_MEMLOCK in bytes, the soft limit. */
  readonly memlock: bigint | 'unlimited' | UnknownFact;
  /**
   * Whether the process has CAP_IPC_LOCK of the initial user namespace, which lifts that limit. Linux checks it with
   * `capable()` in drivers/vfio/vfio_iommu_type1.c and drivers/iommu/iommufd/pages.c.
   */
  readonly ipcLock: boolean | UnknownFact;
  /** `vm.max_map_count`. */
  readonly mappings: number | UnknownFact;
  /** Number of memory mappings of the process now. */
  readonly mapped: number | UnknownFact;
}

/**
 * @param files the root of the file system; `undefined` if only a recorded /sys exists
 * @param inUserNamespace whether the process is in another user namespace than the initial one
 * @internal
 */
export function readLimits(files: SysFiles | undefined, inUserNamespace: boolean | UnknownFact): LimitFacts {
  if (files === undefined) return { memlock: 'unknown', ipcLock: 'unknown', mappings: 'unknown', mapped: 'unknown' };
  const capabilities = /^CapEff:\s*([0-9a-f]{1,16})$/m.exec(files.text('proc/self/status') ?? '')?.[1];
  return {
    memlock: readMemlock(files.text('proc/self/limits') ?? ''),
    ipcLock: capabilities === undefined ? 'unknown' : inUserNamespace !== true && hasIpcLock(capabilities),
    mappings: files.number('proc/sys/vm/max_map_count', 2 ** 31 - 1),
    mapped: files.text('proc/self/maps')?.split('\n').length ?? 'unknown',
  };
}

function hasIpcLock(capabilities: string): boolean {
  return (BigInt(`0x${capabilities}`) & (1n << CAP_IPC_LOCK)) !== 0n;
}

/** Parses `Max locked memory         8388608              8388608              bytes`. */
function readMemlock(text: string): LimitFacts['memlock'] {
  const soft = /^Max locked memory\s+(\d{1,20}|unlimited)\s/m.exec(text)?.[1];
  if (soft === undefined) return 'unknown';
  return soft === 'unlimited' ? soft : BigInt(soft);
}
