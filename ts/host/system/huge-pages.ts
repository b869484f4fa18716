/**
 * Huge pages: those that are set aside, and whether the kernel makes some by itself.
 */
import type { Unknown } from '../model.ts';
import type { SysFiles } from '../sys-files.ts';

/** Pages of one size that are set aside. */
export interface HugePagePool {
  /** Bytes of a page. */
  readonly pageSize: bigint;
  readonly pages: number | Unknown;
  /** Those that are free and that nobody has reserved. */
  readonly free: number | Unknown;
}

/** Huge pages of the machine. */
export interface HugePageFacts {
  /** By size. */
  readonly pools: readonly HugePagePool[];
  /**
   * Of memory in files, as guest RAM is (`shmem_enabled`): `always`, `within_size`, `advise`, `never`, `deny`, `force`;
   * unknown where the kernel does not say.
   */
  readonly transparent: string | Unknown;
}

/** @internal */
export function readHugePages(files: SysFiles): HugePageFacts {
  const pools = files.names('kernel/mm/hugepages').flatMap((name) => {
    const kibibytes = /^hugepages-(\d{1,9})kB$/.exec(name)?.[1];
    if (kibibytes === undefined) return [];
    const count = (which: string): number | Unknown =>
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

/** Pages stay free until they are touched, whoever has reserved them (Linux, mm/hugetlb.c: `available_huge_pages`). */
function available(free: number | Unknown, reserved: number | Unknown): number | Unknown {
  if (free === 'unknown' || reserved === 'unknown') return free;
  return Math.max(0, free - reserved);
}
