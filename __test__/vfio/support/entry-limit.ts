/**
 * The limit of mappings of a container. It is a parameter of the kernel's module, read when a container is opened.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import type { ExecutionContext } from 'ava';

export const ENTRY_LIMIT = '/sys/module/vfio_iommu_type1/parameters/dma_entry_limit';

/** Sets it for containers opened from now on, until the test ends. */
export function setEntryLimit(t: ExecutionContext, limit: number): void {
  const before = readFileSync(ENTRY_LIMIT, 'utf8');
  t.teardown(() => writeFileSync(ENTRY_LIMIT, before));
  writeFileSync(ENTRY_LIMIT, String(limit));
}
