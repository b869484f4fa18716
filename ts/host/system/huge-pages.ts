/**
 * Reads huge pages: reserved pools and the policy for transparent huge pages.
 */
import type { UnknownFact } from '../model.ts';
import type { SysFiles } from '../sys-files.ts';

/** A pool of huge pages of one size. */
export interface HugePagePool {
  /** Size of a page in bytes. */
  readonly pageSize: bigint;
  readonly pages: number | UnknownFact;
  /** Number of pages that are free and not reserved. */
  readonly free: number | UnknownFact;
}

/** Huge pages of the machine. */
export interface HugePageFacts {
  /** Pools, sorted by page size. */
  readonly pools: readonly HugePagePool[];
  /**
   * Policy for memory in files, such as guest RAM (`shmem_enabled`). It is `always`, `within_size`, `advise`, `never`,
   * `deny` or `force`, and unknown if the kernel does not report it.
   */
  readonly transparent: string | UnknownFact;
}

/** @internal */
export function readHugePages(files: SysFiles): HugePageFacts {
  const pools = files.names('kernel/mm/hugepages').flatMap((name) => {
    const kibibytes = /^hugepages-(\d{1,9})kB$/.exec(name)?.[1];
    if (kibibytes === undefined) return [];
    const count = (which: string): number | UnknownFact =>
      files.number(`kernel/mm/hugepages/${name}/${which}_hugepages`, 2 ** 40);
    const free = available(count('free'), count('resv'));
    return [{ pageSize: BigInt(kibibytes) << 10n, pages: count('nr'), free }];
  });
  const chosen = /\[(\w+)\]/.exec(files.word('kernel/mm/transparent_hugepage/shmem_enabled') ?? '')?.[1];
  return {
    pools: pools.sort((a, b) => (a.pageSize < b.pageSize ? -1 : 1)),
    transparent: chosen ?? 'unknown',
  };
}

/**
 * Subtracts reserved pages, which count as free until first use. The kernel does it in `available_huge_pages`
 * (mm/hugetlb.c).
 */
function available(free: number | UnknownFact, reserved: number | UnknownFact): number | UnknownFact {
  if (free === 'unknown' || reserved === 'unknown') return free;
  return Math.max(0, free - reserved);
}
