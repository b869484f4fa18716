/**
 * Reports huge pages for RAM. They are optional, but pinning works page by page and is faster with them.
 */
import type { HugePagePool } from '../../host/system/huge-pages.ts';
import { sizeOf } from '../../size.ts';
import type { Facts } from '../facts.ts';
import type { DoctorFinding } from '../finding.ts';

/** Policies with which `hugePages: 'transparent'` has an effect on RAM, which is file memory. */
const TRANSPARENT: ReadonlySet<string> = new Set(['always', 'within_size', 'advise', 'force']);

/** @internal */
export function hugePagesFinding({ host, system, ram }: Facts): DoctorFinding {
  const id = 'huge-pages';
  const { pools, transparent } = system.hugePages;
  const folder = `${host.root}/kernel/mm`;
  const evidence = [
    `${folder}/transparent_hugepage/shmem_enabled: ${transparent}`,
    ...pools.map(
      ({ pageSize, pages, free }) =>
        `${sizeOf(pageSize)} in ${folder}/hugepages: ${free} of ${pages} free and not reserved`,
    ),
  ].join('; ');
  const enough = pools.find((pool) => ram !== undefined && freeBytes(pool) >= ram);
  if (enough !== undefined) {
    const option = enough.pageSize === 1n << 30n ? '1G' : enough.pageSize === 1n << 21n ? '2M' : undefined;
    const how = option === undefined ? '' : ` (hugePages: '${option}')`;
    const text = `free huge pages of ${sizeOf(enough.pageSize)} suffice for all RAM${how}`;
    return { id, state: 'ok', text, evidence };
  }
  if (TRANSPARENT.has(transparent)) {
    const text = `RAM can have transparent huge pages (hugePages: 'transparent')`;
    return { id, state: 'ok', text, evidence };
  }
  if (transparent === 'unknown' && pools.length === 0) {
    return { id, state: 'unknown', text: 'huge pages are unknown here', evidence: `no ${folder}` };
  }
  const some = pools.find((pool) => freeBytes(pool) > 0n);
  if (ram === undefined && some !== undefined) {
    const text = `${sizeOf(freeBytes(some))} are free in huge pages of ${sizeOf(some.pageSize)}`;
    return { id, state: 'ok', text, evidence };
  }
  const size = ram === undefined ? '' : ` of ${sizeOf(ram)}`;
  const text =
    `RAM${size} will be in pages of 4 KiB; pinning takes about a microsecond for each. ` +
    'Allow transparent huge pages, or reserve huge pages (sysctl vm.nr_hugepages=N)';
  const fix = `echo advise | sudo tee /sys/kernel/mm/transparent_hugepage/shmem_enabled`;
  return { id, state: 'warning', text, evidence, fix: transparent === 'unknown' ? undefined : fix };
}

function freeBytes({ pageSize, free }: HugePagePool): bigint {
  return free === 'unknown' ? 0n : pageSize * BigInt(free);
}
