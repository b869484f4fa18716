/**
 * The reasons that errors give for mappings that a kernel rejected.
 */
import test from 'ava';
import { MemoryFile } from '../../ts/index.ts';
import { refusedMapping } from '../../ts/dma/refusal.ts';
import { PAGE, pages } from '../support/pages.ts';

test('an error without memory names the limit of locked memory and the memory of the host', (t) => {
  const request = { range: pages(0, 1), backing: 'private', writable: true, kind: 'ram', name: 'low' } as const;
  const limits = { pageSize: PAGE, iovaRanges: [pages(0, 16)] };
  const error = refusedMapping(request, { errno: 'ENOMEM', target: 'vfio', limits });
  t.is(error.code, 'ERR_MEMLOCK_LIMIT');
  t.regex(error.message, /RLIMIT_MEMLOCK\), or the kernel has no memory for it\. Raise the limit/);
  t.regex(error.message, /free memory of the host$/);
});

test('distinguishes a full file system from the limit of mappings, which have one errno', (t) => {
  using file = MemoryFile.create(PAGE, { name: 'ram' });
  const request = {
    range: pages(0, 1),
    backing: { file, offset: 0n },
    writable: true,
    kind: 'ram',
    name: 'low',
  } as const;
  const limits = { pageSize: PAGE, iovaRanges: [pages(0, 16)] };
  const refusal = { errno: 'ENOSPC', target: 'vfio', limits };
  const full = refusedMapping(request, { ...refusal, syscall: 'ioctl(IOMMU_IOAS_MAP_FILE)' });
  t.is(full.code, 'ERR_MEMORY_FAULT');
  t.regex(full.message, /the file system of ram has no space for its pages\. Raise its limit/);
  t.is(refusedMapping(request, { ...refusal, syscall: 'ioctl(VFIO_IOMMU_MAP_DMA)' }).code, 'ERR_MAPPING_LIMIT');
});
